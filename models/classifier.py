"""Networks that choose one class: logits (B, C), labels (B,)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

from .trainable import Trainable


class Classifier(Trainable):
    """A network scored by accuracy, which decides, and by F1 averaged over the classes."""

    metric = "accuracy"
    better = "higher"
    # Half a point allows one changed image of digits, and no changed row of breast cancer.
    budget = 0.005
    int8_budget = 0.01

    @classmethod
    def loss(cls, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets)

    @classmethod
    def score(cls, logits: Tensor, targets: Tensor) -> dict[str, float]:
        classes = logits.shape[-1]
        return {
            "accuracy": float(multiclass_accuracy(logits, targets, classes, average="micro")),
            "f1_macro": float(multiclass_f1_score(logits, targets, classes, average="macro")),
        }
