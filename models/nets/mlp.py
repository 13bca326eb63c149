"""Multi-layer perceptron with two hidden layers and GELU, for rows of a table (breast cancer)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...perf.terms.case import Workload
from .. import workload
from ..classifier import Classifier
from ..data.breast_cancer import BreastCancer
from ..trainable import Recipe

# As it is trained by default.
RECIPE = Recipe(learning_rate=3e-3)


class MLP(Classifier):
    """Three linear layers with GELU between them."""

    data = BreastCancer
    item = "row"

    def __init__(
        self, features: int = 30, width: int = 64, classes: int = 2, recipe: Recipe = RECIPE
    ) -> None:
        super().__init__(recipe)
        self.save_hyperparameters(ignore="recipe")
        self.layers = nn.Sequential(
            nn.Linear(features, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, classes),
        )

    def example(self) -> Tensor:
        return torch.randn(1, self.hparams["features"], generator=torch.Generator().manual_seed(0))

    def forward(self, rows: Tensor) -> Tensor:  # (B, features) -> (B, classes)
        return self.layers(rows)


# Preset name -> constructor arguments that differ from the defaults.
PRESETS: dict[str, dict[str, Any]] = {"": {}, "wide": {"width": 4096}}


def load(preset: str = "") -> Workload:
    """The network as a workload; see `hotlap.models.workload`."""
    return workload.load(MLP, PRESETS, preset)


def ready(report: Callable[[str], None]) -> None:
    """Trains the network unless that was done; see `hotlap.models.workload`."""
    workload.ready(MLP, report)
