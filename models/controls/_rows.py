"""Samples as rows of a table, as scikit-learn takes them."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ..data.memory import Split
from ..data.unknown import UNKNOWN

# Pixels of a digit's height and width before it was upscaled.
SIDE = 8


def rows(inputs: Tensor) -> np.ndarray:
    """Returns inputs (N, features) as they are, and of images (N, C, H, W) the first of the equal
    channels, averaged to the 8x8 pixels that it was upscaled from: (N, 64).
    """
    if inputs.ndim == 4:
        inputs = F.adaptive_avg_pool2d(inputs[:, 0], SIDE).flatten(1)
    return inputs.numpy()


def pixels(images: Tensor) -> np.ndarray:
    """Returns each pixel of images (N, C, H, W) as a row of its own, (N H W, C)."""
    return images.permute(0, 2, 3, 1).flatten(0, 2).numpy()


def known_pixels(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixels (P, C) that have a label, and the labels (P,)."""
    images, labels = split
    known = (labels != UNKNOWN).flatten().numpy()
    return pixels(images)[known], labels.flatten().numpy()[known]


def as_image(chances: np.ndarray, images: Tensor) -> Tensor:
    """Returns the classes' probabilities of each pixel (N H W, classes) as (N, classes, H, W)."""
    count, _, height, width = images.shape
    return Tensor(chances).reshape(count, height, width, -1).permute(0, 3, 1, 2)
