"""U-Net: an encoder and a decoder of 3x3 convolutions with connections at each size.

After Ronneberger, Fischer and Brox, U-Net: Convolutional Networks for Biomedical Image
Segmentation, https://arxiv.org/abs/1505.04597, with padding, so that the labels have the size of
the image, and with batch norm. The default has 16 to 64 channels; preset `full` has the five sizes
of the paper, 64 to 1,024 channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...perf.terms.case import Workload
from .. import workload
from ..data.motorcycle import Motorcycle
from ..segmenter import Segmenter
from ..trainable import Recipe


class DoubleConv(nn.Module):
    """relu(norm(conv(relu(norm(conv(x)))))), of 3x3 convolutions."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:  # (B, Cin, H, W) -> (B, C, H, W)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)))


class Up(nn.Module):
    """Doubles the smaller features and joins them with those of the encoder at that size."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(channels_in, channels, 2, stride=2)
        self.conv = DoubleConv(2 * channels, channels)

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:  # (B, Cin, H / 2, W / 2), (B, C, H, W) -> same
        return self.conv(torch.cat([beside, self.enlarge(x)], dim=1))


# As it is trained by default.
RECIPE = Recipe(learning_rate=2e-3)


class UNet(Segmenter):
    """Encoder, decoder and a 1x1 output layer.

    Height and width must be multiples of 2**(sizes - 1).
    """

    data = Motorcycle
    layout = torch.channels_last

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64),
        classes: int = 2,
        side: int = 32,
        recipe: Recipe = RECIPE,
    ) -> None:
        super().__init__(recipe)
        self.save_hyperparameters(ignore="recipe")
        widths = list(pairwise(channels))
        self.stem = DoubleConv(3, channels[0])
        self.down = nn.ModuleList(DoubleConv(before, width) for before, width in widths)
        self.up = nn.ModuleList(Up(width, before) for before, width in reversed(widths))
        self.head = nn.Conv2d(channels[0], classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def example(self) -> Tensor:
        side = self.hparams["side"]
        return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))

    def forward(self, images: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, classes, H, W)
        features = [self.stem(images)]  # (B, C, H, W) at each size, the largest first
        for down in self.down:
            features.append(down(F.max_pool2d(features[-1], 2)))
        x = features.pop()
        for up in self.up:
            x = up(x, features.pop())
        return self.head(x)


# Preset name -> constructor arguments that differ from the defaults.
PRESETS: dict[str, dict[str, Any]] = {"": {}, "full": {"channels": (64, 128, 256, 512, 1024), "side": 256}}


def load(preset: str = "") -> Workload:
    """The network as a workload; see `hotlap.models.workload`."""
    return workload.load(UNet, PRESETS, preset)


def ready(report: Callable[[str], None]) -> None:
    """Trains the network unless that was done; see `hotlap.models.workload`."""
    workload.ready(UNet, report)
