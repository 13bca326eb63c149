"""Temporal convolutional network: residual blocks of dilated causal convolutions, for forecasts.

After Bai, Kolter and Koltun, An Empirical Evaluation of Generic Convolutional and Recurrent
Networks for Sequence Modeling, https://arxiv.org/abs/1803.01271, with their residual blocks and
doubled dilations and without their weight normalisation. What the network sees and what it answers
is relative to the latest value, so that a series may leave the range that it was trained in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...perf.terms.case import Workload
from .. import workload
from ..data.co2 import CO2
from ..forecaster import Forecaster
from ..trainable import Recipe


class CausalConv(nn.Module):
    """A convolution in which each step sees itself and those before it."""

    def __init__(self, channels_in: int, channels: int, size: int, dilation: int) -> None:
        super().__init__()
        self.before = (size - 1) * dilation
        self.conv = nn.Conv1d(channels_in, channels, size, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:  # (B, Cin, T) -> (B, C, T)
        return self.conv(F.pad(x, (self.before, 0)))


class TemporalBlock(nn.Module):
    """relu(x + drop(relu(conv(drop(relu(conv(x))))))).

    Where the number of channels changes, x passes a 1x1 convolution.
    """

    def __init__(self, channels_in: int, channels: int, size: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            CausalConv(channels_in, channels, size, dilation),
            nn.ReLU(),
            nn.Dropout(dropout),
            CausalConv(channels, channels, size, dilation),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.shortcut: nn.Module = nn.Identity()
        if channels_in != channels:
            self.shortcut = nn.Conv1d(channels_in, channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, Cin, T) -> (B, C, T)
        return F.relu(self.layers(x) + self.shortcut(x))


# As it is trained by default.
RECIPE = Recipe(learning_rate=3e-3)


class TCN(Forecaster):
    """Blocks with dilations 1, 2, 4 ..., and an output layer on the latest step.

    depth: the blocks; size: of a convolution, in steps. The latest step sees 1 + 2 (size - 1)
    (2**depth - 1) steps: by default 61, all 48 of a window.
    """

    data = CO2

    def __init__(
        self,
        past: int = 48,
        horizon: int = 12,
        channels: int = 32,
        depth: int = 4,
        size: int = 3,
        dropout: float = 0.1,
        recipe: Recipe = RECIPE,
    ) -> None:
        super().__init__(recipe)
        self.save_hyperparameters(ignore="recipe")
        self.blocks = nn.Sequential(
            *(
                TemporalBlock(channels if index else 1, channels, size, 2**index, dropout)
                for index in range(depth)
            )
        )
        self.head = nn.Linear(channels, horizon)

    def example(self) -> Tensor:
        return torch.randn(1, self.hparams["past"], generator=torch.Generator().manual_seed(0))

    def forward(self, values: Tensor) -> Tensor:  # (B, T) -> (B, H)
        latest = values[:, -1:]  # (B, 1)
        features = self.blocks((values - latest)[:, None])  # (B, C, T)
        return latest + self.head(features[:, :, -1])


# Preset name -> constructor arguments that differ from the defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "": {},
    "long": {"past": 1024, "horizon": 96, "channels": 128, "depth": 8},
}


def load(preset: str = "") -> Workload:
    """The network as a workload; see `hotlap.models.workload`."""
    return workload.load(TCN, PRESETS, preset)


def ready(report: Callable[[str], None]) -> None:
    """Trains the network unless that was done; see `hotlap.models.workload`."""
    workload.ready(TCN, report)
