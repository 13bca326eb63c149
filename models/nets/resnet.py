"""ResNet-18: eight basic blocks of two 3x3 convolutions in four stages.

After He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition,
https://arxiv.org/abs/1512.03385. The default keeps the topology with 16 to 128 channels, a 3x3 stem
and no max-pool, as usual for 32x32 images; preset `full` is the network of the paper for ImageNet.
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
from ..classifier import Classifier
from ..data.digits import Digits
from ..trainable import Recipe


class BasicBlock(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))).

    Where the shape changes, x passes a 1x1 convolution.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:  # (B, Cin, H, W) -> (B, C, H / stride, W / stride)
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


# As it is trained by default.
RECIPE = Recipe(learning_rate=5e-3)


class ResNet18(Classifier):
    """Stem, eight basic blocks, mean over the pixels, output layer.

    large_stem: a 7x7 convolution and a max-pool instead of a 3x3 convolution alone.
    """

    data = Digits
    layout = torch.channels_last
    item = "image"

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64, 128),
        classes: int = 10,
        side: int = 32,
        large_stem: bool = False,
        recipe: Recipe = RECIPE,
    ) -> None:
        super().__init__(recipe)
        self.save_hyperparameters(ignore="recipe")
        size, stride = (7, 2) if large_stem else (3, 1)
        convolution = nn.Conv2d(3, channels[0], size, stride, padding=size // 2, bias=False)
        pool = nn.MaxPool2d(3, 2, padding=1) if large_stem else nn.Identity()
        self.stem = nn.Sequential(convolution, nn.BatchNorm2d(channels[0]), nn.ReLU(), pool)
        blocks = [
            BasicBlock(channels[0], channels[0], stride=1),
            BasicBlock(channels[0], channels[0], stride=1),
        ]
        for before, width in pairwise(channels):
            blocks += [BasicBlock(before, width, stride=2), BasicBlock(width, width, stride=1)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def example(self) -> Tensor:
        side = self.hparams["side"]
        return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))

    def forward(self, images: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, classes)
        features = self.blocks(self.stem(images))  # (B, C, h, w)
        return self.head(features.mean(dim=(2, 3)))


# Preset name -> constructor arguments that differ from the defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "": {},
    "full": {"channels": (64, 128, 256, 512), "classes": 1000, "side": 224, "large_stem": True},
}


def load(preset: str = "") -> Workload:
    """The network as a workload; see `hotlap.models.workload`."""
    return workload.load(ResNet18, PRESETS, preset)


def ready(report: Callable[[str], None]) -> None:
    """Trains the network unless that was done; see `hotlap.models.workload`."""
    workload.ready(ResNet18, report)
