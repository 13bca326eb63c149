"""Activation checkpointing: named submodules keep their inputs instead of what they compute on the
way, and compute it once more in the backward pass; less memory for more time.

Chen and others, Training Deep Nets with Sublinear Memory Cost, https://arxiv.org/abs/1604.06174.
"""

from __future__ import annotations

import functools
from fnmatch import fnmatchcase
from typing import Any

import lightning.pytorch as L
import torch
from torch.utils.checkpoint import checkpoint

from ...perf.terms.reasons import Misuse
from ..catalog import nearest


class ActivationCheckpointing(L.Callback):
    """Recomputes what the submodules of these names compute, while training."""

    def __init__(self, modules: list[str]) -> None:
        """modules: names as `named_modules` has them, or patterns of such: blocks.*"""
        self.modules = modules

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Raises Misuse for a name that no submodule has."""
        if stage != "fit":
            return
        names = [name for name, _ in pl_module.named_modules() if name]
        for pattern in self.modules:
            matching = [name for name in names if fnmatchcase(name, pattern)]
            if not matching:
                raise Misuse(
                    f"ActivationCheckpointing: no submodule is called {pattern!r}; {nearest(pattern, names)}"
                )
            for name in matching:
                part: Any = pl_module.get_submodule(name)
                part.forward = functools.partial(recomputed, part.forward)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for part in pl_module.modules():
            if getattr(vars(part).get("forward"), "func", None) is recomputed:
                del part.forward


def recomputed(forward: Any, *inputs: Any, **named: Any) -> Any:
    """Returns what `forward` does; random numbers are the same each time."""
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    return checkpoint(forward, *inputs, use_reentrant=False, **named)
