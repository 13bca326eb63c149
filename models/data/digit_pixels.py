"""The handwritten digits of `digits.py` as they are: 8x8 pixels, to be made anew."""

from __future__ import annotations

import numpy as np
import torch

from .digits import MAX_PIXEL, Digits
from .memory import InMemoryData, Split
from .splits import stratified


class DigitPixels(InMemoryData):
    """Images (1, 8, 8) in 0..1, in steps of a sixteenth, which are their own targets.

    The splits are those of `Digits`.
    """

    def read(self) -> dict[str, np.ndarray]:
        return Digits().read()

    def prepare(self, raw: dict[str, np.ndarray]) -> dict[str, Split]:
        images = torch.from_numpy(raw["images"]).float()[:, None] / MAX_PIXEL  # (N, 1, 8, 8)
        return {name: (images[chosen], images[chosen]) for name, chosen in stratified(raw["labels"]).items()}
