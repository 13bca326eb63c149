"""Variational autoencoder of two convolutions and two transposed ones (handwritten digits).

After Kingma and Welling, Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114. What is
accelerated is `forward`: the image made anew from the mean of its codes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...perf.terms.case import Workload
from .. import workload
from ..autoencoder import Autoencoder
from ..data.digit_pixels import DigitPixels
from ..trainable import Recipe


class Encoder(nn.Module):
    """Two convolutions that halve the image, and a linear layer to mean and log variance."""

    def __init__(self, channels: int, side: int, code: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(2 * channels * (side // 4) ** 2, 2 * code),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # (B, 1, S, S) -> (B, D), (B, D)
        mean, log_variance = self.layers(images).chunk(2, dim=1)
        return mean, log_variance


class Decoder(nn.Module):
    """The encoder the other way round."""

    def __init__(self, channels: int, side: int, code: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(code, 2 * channels * (side // 4) ** 2),
            nn.GELU(),
            nn.Unflatten(1, (2 * channels, side // 4, side // 4)),
            nn.ConvTranspose2d(2 * channels, channels, 4, stride=2, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(channels, 1, 4, stride=2, padding=1),
        )

    def forward(self, codes: Tensor) -> Tensor:  # (B, D) -> (B, 1, S, S)
        return self.layers(codes)


# As it is trained by default.
RECIPE = Recipe(learning_rate=5e-3)


class VAE(Autoencoder):
    """Encoder and decoder around a code of 8 numbers."""

    data = DigitPixels
    # 2 % of the error of 0.0099 that the default network reaches on its validation split.
    budget = 0.0002
    # 10 % of the same.
    int8_budget = 0.001

    def __init__(self, channels: int = 32, code: int = 8, side: int = 8, recipe: Recipe = RECIPE) -> None:
        super().__init__(recipe)
        self.save_hyperparameters(ignore="recipe")
        self.encoder = Encoder(channels, side, code)
        self.decoder = Decoder(channels, side, code)

    def example(self) -> Tensor:
        side = self.hparams["side"]
        return torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(0))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:  # (B, 1, S, S) -> (B, D), (B, D)
        return self.encoder(images)

    def decode(self, codes: Tensor) -> Tensor:  # (B, D) -> (B, 1, S, S)
        return self.decoder(codes)


# Preset name -> constructor arguments that differ from the defaults.
PRESETS: dict[str, dict[str, Any]] = {"": {}, "large": {"channels": 128, "code": 32, "side": 64}}


def load(preset: str = "") -> Workload:
    """The network as a workload; see `hotlap.models.workload`."""
    return workload.load(VAE, PRESETS, preset)


def ready(report: Callable[[str], None]) -> None:
    """Trains the network unless that was done; see `hotlap.models.workload`."""
    workload.ready(VAE, report)
