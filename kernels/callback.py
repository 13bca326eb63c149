"""Our kernels in a Lightning training:

    Trainer(callbacks=[hotlap.TritonKernels()]).fit(module, data)

The module is replaced (surgery.py) when a stage begins and is itself again when it ends, also after
an exception, so checkpoints and pickles never see it replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import lightning.pytorch as L

from .surgery import Report, replace, restore

log = logging.getLogger("hotlap")


class TritonKernels(L.Callback):
    """Replaces operations of the trained module by ours for as long as a stage runs.

    `only` are names of operations, as `replace` takes them; `report` says what was replaced in the
    last stage. Its setup raises Unsupported where the module is compiled already.
    """

    def __init__(self, only: Iterable[str] | None = None) -> None:
        self.only = None if only is None else list(only)
        self.report: Report | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.report = replace(pl_module, self.only)
        log.info("hotlap: our kernels in %s:\n%s", type(pl_module).__name__, self.report)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        restore(pl_module)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        restore(pl_module)
