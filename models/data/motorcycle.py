"""A photograph of a motorcycle with measured depth, as it ships with scikit-image, in tiles.

500x741 pixels; the disparity of each to a second camera was measured with structured light, and is
unknown where the light or a camera's sight did not reach. Source: Scharstein and others,
High-Resolution Stereo Datasets with Subpixel-Accurate Ground Truth, 2014,
https://doi.org/10.1007/978-3-319-11752-2_3, a quarter of the size.

The labels are that measurement, not an opinion about the picture: a pixel is of class 1 where its
disparity is above 40, which of the rows that are used (above the foot of the wheels, where the
floor comes as near) is the motorcycle. There is one photograph, so the validation split says how
well gaps in it are filled, and not how well the network knows another motorcycle.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .libraries import library
from .memory import InMemoryData, Split
from .order import generator, of_rank
from .splits import stratified
from .unknown import UNKNOWN

# Pixels of a tile's height and width.
SIDE = 32
# Rows and columns that are used: whole tiles, and no floor that is as near as the motorcycle.
ROWS, COLUMNS = 384, 736
# Pixels of disparity above which a pixel is of the motorcycle.
NEAR = 40.0
# Tiles with fewer and with more pixels of the motorcycle than these shares are split apart from the
# others, so that each split has its part of them.
FEW, MANY = 0.02, 0.98


def tiles(picture: np.ndarray) -> np.ndarray:
    """Cuts a picture (H, W, ...) into tiles (N, SIDE, SIDE, ...) side by side, row by row."""
    height, width = picture.shape[0] // SIDE, picture.shape[1] // SIDE
    grid = picture[: height * SIDE, : width * SIDE].reshape(height, SIDE, width, SIDE, *picture.shape[2:])
    return grid.swapaxes(1, 2).reshape(height * width, SIDE, SIDE, *picture.shape[2:])


def labelled(disparity: np.ndarray) -> np.ndarray:
    """Returns each pixel's class: 1 nearer than NEAR, 0 farther, UNKNOWN if not measured."""
    return np.where(np.isfinite(disparity), (disparity > NEAR).astype(np.int64), UNKNOWN)


def turned(images: Tensor, labels: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirrors and brightens each of the images (B, 3, H, W), with its labels (B, H, W), by chance.

    Brightness and contrast change by up to a fifth.
    """
    mirrored = torch.rand(len(images), generator=random) < 0.5
    gain, offset = (torch.rand(2, len(images), 1, 1, 1, generator=random) * 0.4 - 0.2).to(images)
    images = torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(-1), images)
    labels = torch.where(mirrored.to(labels.device)[:, None, None], labels.flip(-1), labels)
    return ((images - 0.5) * (1 + gain) + 0.5 + offset).clamp(0, 1), labels


class Motorcycle(InMemoryData):
    """Tiles (3, 32, 32) in 0..1 and their labels (32, 32); mirrored and brightened while training.

    No pixel is in two tiles; tiles of two splits may touch.
    """

    def read(self) -> dict[str, np.ndarray]:
        left, _, disparity = library("skimage.data", "scikit-image").stereo_motorcycle()
        return {"picture": left[:ROWS, :COLUMNS], "disparity": disparity[:ROWS, :COLUMNS]}

    def prepare(self, raw: dict[str, np.ndarray]) -> dict[str, Split]:
        images = torch.from_numpy(tiles(raw["picture"])).permute(0, 3, 1, 2).float() / 255  # (N, 3, S, S)
        labels = tiles(labelled(raw["disparity"]))  # (N, S, S)
        share = (labels == 1).mean(axis=(1, 2))
        kinds = (share > FEW).astype(np.int64) + (share > MANY)
        return {
            name: (images[chosen].contiguous(), torch.from_numpy(labels[chosen]))
            for name, chosen in stratified(kinds).items()
        }

    def on_after_batch_transfer(
        self, batch: tuple[Tensor, Tensor], dataloader_idx: int
    ) -> tuple[Tensor, Tensor]:
        if self.trainer is not None and self.trainer.training:
            purpose = of_rank("augment", self.trainer.global_rank)
            return turned(*batch, generator(self.seed, purpose, self.trainer.global_step))
        return batch
