"""What every network here has beside its topology.

That is data, a recipe, a loss, a score, and what its checkpoints say of themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import lightning.pytorch as L
import torch
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from .class_report import ClassReport
from .data.memory import InMemoryData


@dataclass(frozen=True)
class Recipe:
    """How weights follow their gradients: by AdamW, with one cycle of the learning rate, up, then
    down, along cosines.
    """

    # At the top of the cycle.
    learning_rate: float
    # Of matrices; vectors are not decayed.
    weight_decay: float = 0.01
    # Share of the steps in which the learning rate goes up.
    warmup: float = 0.2


class Trainable(L.LightningModule, ABC):
    """A LightningModule that knows how to train and to score itself."""

    # Where samples come from.
    data: ClassVar[type[InMemoryData]]
    # The key of `score` that decides.
    metric: ClassVar[str]
    # Which way the metric is better.
    better: ClassVar[Literal["higher", "lower"]]
    # How much worse, in the metric's unit, an accelerated model scores before it counts as wrong.
    budget: ClassVar[float]
    # The same for a model in int8.
    int8_budget: ClassVar[float]
    # Of the weights in training; convolutions want channels_last.
    layout: ClassVar[torch.memory_format] = torch.contiguous_format
    # What one item of the workload is called; a sample holds `items_per_sample` of them.
    item: ClassVar[str]

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self._scored: list[tuple[Tensor, Tensor]] = []
        # Split -> what `report` says of it, once it was validated or tested outside of a training.
        self.reports: dict[str, ClassReport] = {}

    @classmethod
    def label(cls) -> str:
        """The network's name, which is its file's name."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    @abstractmethod
    def loss(cls, logits: Tensor, targets: Tensor) -> Tensor:
        """The scalar that training minimises."""

    @classmethod
    @abstractmethod
    def score(cls, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """Metric name -> value over all samples; one of the names is `metric`."""

    @classmethod
    def report(cls, logits: Tensor, targets: Tensor) -> ClassReport | None:
        """Returns what there is to say of all samples beside scores; None: nothing."""
        return None

    @classmethod
    def items_per_sample(cls, inputs: Tensor) -> int:
        """How many items one of the inputs (N, ...) holds."""
        return 1

    @abstractmethod
    def example(self) -> Tensor:
        """One seeded random sample of the shape that the constructor arguments ask for."""

    @property  # type: ignore[misc]  # Lightning's own can be set; ours follows from the constructor arguments
    def example_input_array(self) -> Tensor:
        return self.example()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, targets = batch
        loss = self.loss(self(inputs), targets)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(inputs), sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        inputs, targets = batch
        self._scored.append((self(inputs).cpu(), targets.cpu()))

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self._log_scores("validation")

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def _log_scores(self, split: str) -> None:
        logits, targets = (torch.cat(parts) for parts in zip(*self._scored, strict=True))
        self._scored.clear()
        self.log_dict({f"{split}_{name}": value for name, value in self.score(logits, targets).items()})
        report = None if self.trainer.state.fn == TrainerFn.FITTING else self.report(logits, targets)
        if report is not None:
            self.reports[split] = report

    def configure_optimizers(self) -> Any:
        """Returns AdamW and its cycle; biases, norms and other vectors are not decayed.

        Under mixed precision AdamW is not fused: Lightning clips no gradients that a fused
        optimizer would unscale.
        """
        decayed = [parameter for parameter in self.parameters() if parameter.ndim >= 2]
        others = [parameter for parameter in self.parameters() if parameter.ndim < 2]
        groups = [
            {"params": decayed, "weight_decay": self.recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(
            groups, lr=self.recipe.learning_rate, fused=type(self.trainer.precision_plugin) is Precision
        )
        steps = int(self.trainer.estimated_stepping_batches)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.recipe.learning_rate, total_steps=steps, pct_start=self.recipe.warmup
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


def class_name(cls: type) -> str:
    """The class as checkpoints name it, package.module:Class."""
    return f"{cls.__module__}:{cls.__qualname__}"


def device() -> str:
    """Returns where a training runs, cuda or cpu."""
    return "cuda" if torch.cuda.is_available() else "cpu"
