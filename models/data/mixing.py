"""Images that are mixed with others of their batch, and their labels with them, while training.

MixUp: Zhang and others, https://arxiv.org/abs/1710.09412. CutMix: Yun and others,
https://arxiv.org/abs/1905.04899. Both are torchvision's. They draw from torch's own random numbers,
which a training seeds for every batch, from seed, epoch and the batch's number.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from .libraries import library

# "either": each batch by one of the two, by chance.
Mix = Literal["none", "mixup", "cutmix", "either"]


def mixed(images: Tensor, labels: Tensor, classes: int, mix: Mix) -> tuple[Tensor, Tensor]:
    """Mixes images (B, C, H, W) in 0..1 and makes of their labels (B,) shares of each class
    (B, classes), as cross entropy takes both.

    Weights are uniform in 0..1 (the Beta distribution with alpha 1). Raises Misuse where
    torchvision is not installed.
    """
    if mix == "none":
        return images, labels
    v2 = library("torchvision.transforms.v2", "torchvision")
    mixup, cutmix = v2.MixUp(num_classes=classes), v2.CutMix(num_classes=classes)
    chosen = {"mixup": mixup, "cutmix": cutmix, "either": v2.RandomChoice([mixup, cutmix])}[mix]
    images, labels = chosen(images, labels)
    return images, labels
