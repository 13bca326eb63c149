"""Handwritten digits, as they ship with scikit-learn.

1,797 grey images of 8x8 pixels, 10 classes, upscaled to 32x32 RGB. Source: Alpaydin and Kaynak, UCI
Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .memory import InMemoryData, Split
from .order import generator, of_rank
from .splits import stratified

# Pixels of an image's height and width after upscaling, as in CIFAR-10.
SIDE = 32
# load_digits counts set pixels in 4x4 blocks.
MAX_PIXEL = 16


def augment(
    images: Tensor, random: torch.Generator, degrees: float = 10.0, scale: float = 0.1, shift: float = 0.125
) -> Tensor:
    """Returns the images (B, C, H, W), each rotated, scaled and shifted by amounts of its own.

    The amounts are uniform in +- the limits: degrees, scale as a share of the size, shift as a
    share of half the side (0.125 of 32 pixels: 2 pixels). What comes in from outside is 0, the
    background.
    """
    angle, size, across, down = (torch.rand(4, len(images), generator=random) * 2 - 1).to(images)
    angle, size = angle * math.radians(degrees), 1 + size * scale
    rows = [
        torch.stack([size * angle.cos(), -size * angle.sin(), across * shift], dim=-1),
        torch.stack([size * angle.sin(), size * angle.cos(), down * shift], dim=-1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)  # (B, H, W, 2)
    return F.grid_sample(images, grid, align_corners=False)


class Digits(InMemoryData):
    """Images (3, 32, 32) in 0..1, three equal channels; augmented while training, and only then."""

    def __init__(self, batch_size: int = 64, seed: int | None = None, augmented: bool = True) -> None:
        super().__init__(batch_size, seed)
        self.augmented = augmented

    def read(self) -> dict[str, np.ndarray]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        return {"images": digits.images, "labels": digits.target}

    def prepare(self, raw: dict[str, np.ndarray]) -> dict[str, Split]:
        grey = torch.from_numpy(raw["images"]).float()[:, None] / MAX_PIXEL  # (N, 1, 8, 8)
        large = F.interpolate(grey, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        images = large.repeat(1, 3, 1, 1)  # (N, 3, 32, 32)
        labels = torch.from_numpy(raw["labels"]).long()
        return {name: (images[chosen], labels[chosen]) for name, chosen in stratified(raw["labels"]).items()}

    def on_after_batch_transfer(
        self, batch: tuple[Tensor, Tensor], dataloader_idx: int
    ) -> tuple[Tensor, Tensor]:
        images, labels = batch
        if self.augmented and self.trainer is not None and self.trainer.training:
            purpose = of_rank("augment", self.trainer.global_rank)
            images = augment(images, generator(self.seed, purpose, self.trainer.global_step))
        return images, labels
