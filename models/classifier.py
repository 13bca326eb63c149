"""Networks that choose one class: logits (B, C), labels (B,)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from .class_report import ClassReport, ConfidenceBin
from .trainable import Trainable

# Of equal width, as in the paper on calibration.
BINS = 15


class Classifier(Trainable):
    """A network scored by accuracy, which decides, and by F1 and calibration."""

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
        """Returns accuracy, F1 averaged over the classes, the expected calibration error, and F1 of
        the worst class that has samples.

        The calibration error is how far confidence is from accuracy, averaged over BINS bins of
        confidence: Guo and others, 2017, On Calibration of Modern Neural Networks,
        https://arxiv.org/abs/1706.04599.
        """
        classes = logits.shape[-1]
        f1 = multiclass_f1_score(logits, targets, classes, average="none")  # (C,)
        probabilities = logits.float().softmax(-1)  # torchmetrics takes logits within [0, 1] for such
        error = multiclass_calibration_error(probabilities, targets, classes, n_bins=BINS, norm="l1")
        return {
            "accuracy": float(multiclass_accuracy(logits, targets, classes, average="micro")),
            "f1_macro": float(multiclass_f1_score(logits, targets, classes, average="macro")),
            "calibration_error": float(error),
            "f1_worst": float(f1[targets.bincount(minlength=classes) > 0].min()),
        }

    @classmethod
    def report(cls, logits: Tensor, targets: Tensor) -> ClassReport:
        """Returns scores of each class, which classes are taken for which, and accuracy by
        confidence.
        """
        classes = logits.shape[-1]
        confusion = multiclass_confusion_matrix(logits, targets, classes)  # (C, C)
        samples, predicted = confusion.sum(1), confusion.sum(0)  # (C,)
        return ClassReport(
            confusion.tolist(),
            where(multiclass_precision(logits, targets, classes, average="none"), predicted),
            where(multiclass_recall(logits, targets, classes, average="none"), samples),
            where(multiclass_f1_score(logits, targets, classes, average="none"), samples + predicted),
            confidence_bins(logits.float().softmax(-1), targets),
        )


def where(scores: Tensor, counted: Tensor) -> list[float | None]:
    """Returns scores (C,) as JSON holds them: None for a class of which nothing was counted."""
    return [score if count else None for score, count in zip(scores.tolist(), counted.tolist(), strict=True)]


def confidence_bins(probabilities: Tensor, targets: Tensor) -> list[ConfidenceBin]:
    """Returns BINS bins of the highest probability, those of the calibration error.

    probabilities (N, C), targets (N,).
    """
    confidence, predicted = probabilities.max(-1)  # (N,)
    right = (predicted == targets).float()
    edges = torch.linspace(0, 1, BINS + 1)
    numbers = (torch.bucketize(confidence, edges, right=True) - 1).clamp(max=BINS - 1)
    bins = []
    for number in range(BINS):
        inside = numbers == number
        samples = int(inside.sum())
        means = (float(confidence[inside].mean()), float(right[inside].mean())) if samples else (None, None)
        bins.append(ConfidenceBin(number / BINS, (number + 1) / BINS, samples, *means))
    return bins
