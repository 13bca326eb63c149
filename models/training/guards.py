"""Stops a training that has gone wrong before it harms its weights, and keeps the batch that did
it.
"""

from __future__ import annotations

import math
from collections import deque
from pathlib import Path
from statistics import median
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor

from ...perf.terms import files
from .. import mixed

# The batch that a training was stopped at.
BATCH = "bad_batch.pt"
# Losses whose median a spike is compared with, and how many of them there must be.
LATEST, FEWEST = 50, 10


class TrainingStopped(RuntimeError):
    """A training cannot go on as it is."""


class TrainingFailed(RuntimeError):
    """The module or its data raised an exception; it is the cause."""


class Guard(L.Callback):
    """Stops at a loss or a gradient that is not finite, at a loss far above the latest, and at an
    empty split.
    """

    def __init__(self, folder: Path, spike: float | None) -> None:
        """spike: how many times the median of the latest losses is too much; None: nothing is."""
        self.folder, self.spike = folder, spike
        self.latest: deque[float] = deque(maxlen=LATEST)
        self.batch: Any = None
        self.index = 0

    def state_dict(self) -> dict[str, list[float]]:
        return {"latest": list(self.latest)}

    def load_state_dict(self, state_dict: dict[str, list[float]]) -> None:
        self.latest.extend(state_dict["latest"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        counts = trainer.num_val_batches
        if trainer.limit_val_batches and 0 in (counts if isinstance(counts, list) else [counts]):
            raise TrainingStopped("the validation split is empty")

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batch, self.index = batch, batch_idx

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        if mixed.scale(trainer) is None and (
            wrong := self.judged(float(loss.detach()) * trainer.accumulate_grad_batches)
        ):
            self.stop(wrong, trainer)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        gradients = [each.grad for each in pl_module.parameters() if each.grad is not None]
        if mixed.scale(trainer) is None and gradients:
            norm = float(torch.nn.utils.get_total_norm(gradients))
            if not math.isfinite(norm):
                self.stop(f"the loss is finite and its gradient is {norm}", trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Looks at a loss that is scaled: where it overflows, the step is left out and the scale
        halved, which has an end.
        """
        scale = mixed.scale(trainer)
        if scale is None:
            return
        if scale < 1:
            self.stop("at no scale of the loss are the gradients finite", trainer)
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        value = float(loss) if isinstance(loss, Tensor) else math.inf
        wrong = self.judged(value * trainer.accumulate_grad_batches) if math.isfinite(value) else ""
        if wrong:
            self.stop(wrong, trainer)

    def stop(self, wrong: str, trainer: L.Trainer) -> None:
        """Keeps the present batch. Raises TrainingStopped."""
        with files.replacing(self.folder / BATCH) as part:
            torch.save(self.batch, part)
        raise TrainingStopped(
            f"{wrong} at batch {self.index} of epoch {trainer.current_epoch + 1}; the batch is in"
            f" {self.folder / BATCH}"
        )

    def judged(self, loss: float) -> str:
        """Returns what is wrong with a loss; empty where nothing is, and it joins the latest."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        usual = abs(median(self.latest)) if len(self.latest) >= FEWEST else 0.0
        if self.spike is not None and usual and abs(loss) > self.spike * usual:
            return f"the loss is {loss:.4g}, {abs(loss) / usual:.0f} times the latest"
        self.latest.append(loss)
        return ""
