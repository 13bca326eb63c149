"""Networks that give each pixel a class: images (B, 3, H, W), logits (B, C, H, W), labels
(B, H, W); pixels whose label is UNKNOWN are neither trained on nor scored.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy
from torchmetrics.functional.segmentation import dice_score

from .data.unknown import UNKNOWN
from .trainable import Trainable


class Segmenter(Trainable):
    """A network scored by Dice over all pixels, which decides, and by the share of right pixels.

    Dice is 2 |A and B| / (|A| + |B|) of each class, averaged; class 0 is the background and has no
    part in it.
    """

    metric = "dice"
    better = "higher"
    budget = 0.005
    int8_budget = 0.02
    item = "tile"

    @classmethod
    def loss(cls, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, ignore_index=UNKNOWN)

    @classmethod
    def score(cls, logits: Tensor, targets: Tensor) -> dict[str, float]:
        known = targets != UNKNOWN
        classes = logits.shape[1]
        chosen, labels = logits.argmax(1)[known][None], targets[known][None]  # (1, known pixels)
        dice = dice_score(chosen, labels, classes, include_background=False, input_format="index")
        return {
            "dice": float(dice.mean()),
            "pixel_accuracy": float(multiclass_accuracy(chosen, labels, classes, average="micro")),
        }
