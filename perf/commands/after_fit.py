"""The fastest right way to run what a training made, left beside its best checkpoint:

    Trainer(callbacks=[hotlap.OptimizeAfterFit()]).fit(module, data)

`hotlap optimize` runs in a process of its own when the fit is over, on rank 0 alone: it imports the
module's class, loads the checkpoint, and measures without what the training left behind.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as L

log = logging.getLogger("hotlap")


class OptimizeAfterFit(L.Callback):
    """A callback for Lightning's Trainer; the module needs example_input_array, and its class must
    be importable (not defined in the script that is run).

    goal, subject_to, budget, target: as of `hotlap optimize`. out: the folder; by default the best
    checkpoint's name and `.optimized`, beside it. `folder` is that folder afterwards, None where
    nothing was chosen, and the log says why. A fit that Ctrl-C or an exception ended is left alone.
    """

    def __init__(
        self,
        goal: str = "min latency",
        subject_to: str = "",
        budget: str = "5m",
        target: str = "auto",
        out: str | Path | None = None,
    ) -> None:
        from ..choose import wishes
        from ..terms import units

        wishes.parse(goal, subject_to)  # before a training of hours, not after it
        units.seconds(budget)
        self.options = ["--goal", goal, "--budget", budget, "--target", target]
        self.options += ["--subject-to", subject_to] if subject_to else []
        self.out = None if out is None else Path(out)
        self.folder: Path | None = None
        self.failed = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Raises ValueError at once for a module that could not be optimised at the end."""
        self.failed = False
        if stage != "fit":
            return
        if type(pl_module).__module__ == "__main__" or "<locals>" in type(pl_module).__qualname__:
            raise ValueError(
                f"OptimizeAfterFit: {type(pl_module).__qualname__} cannot be imported by another process;"
                " define it at the top of a file that the script imports"
            )
        if pl_module.example_input_array is None:
            raise ValueError(f"OptimizeAfterFit: {type(pl_module).__qualname__} has no example_input_array")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self.failed = True

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit" or self.failed or trainer.interrupted or not trainer.is_global_zero:
            return
        best = best_checkpoint(trainer)
        if best is None:
            log.warning("hotlap: the training kept no checkpoint (ModelCheckpoint), so nothing was optimised")
            return
        out = self.out or best.with_name(f"{best.stem}.optimized")
        name = f"{type(pl_module).__module__}:{type(pl_module).__qualname__}"
        command = [sys.executable, "-m", "hotlap.perf.cli", "optimize", name, "--checkpoint", str(best)]
        done = subprocess.run(
            [*command, "-o", str(out), *self.options], capture_output=True, text=True, check=False
        )
        self.folder = out if (out / "manifest.json").is_file() else None
        printed = (done.stdout if self.folder is not None else done.stderr or done.stdout).strip()
        log.info("hotlap: %s", printed)
        if self.folder is None:
            log.warning(
                "hotlap: nothing was chosen: %s", printed.splitlines()[-1] if printed else done.returncode
            )


def best_checkpoint(trainer: L.Trainer) -> Path | None:
    """Returns the best checkpoint of a fit, or its last; None where it kept none."""
    kept: Any = trainer.checkpoint_callback
    for path in (getattr(kept, "best_model_path", ""), getattr(kept, "last_model_path", "")):
        if path and Path(path).is_file():
            return Path(path)
    return None
