"""Scores and reports: against counts by hand, and beside a run."""

from __future__ import annotations

import json
import math

import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support
from torch import Tensor

from hotlap.models import class_report
from hotlap.models.classifier import BINS, Classifier
from hotlap.models.language_model import LanguageModel
from hotlap.models.train import train


@pytest.fixture(scope="module")
def guesses() -> tuple[Tensor, Tensor]:
    """Logits (N, C) and labels (N,): class 4 has no samples, class 3 is never guessed."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (500,), generator=generator)
    logits = torch.randn(500, 5, generator=generator) + 2 * torch.eye(5)[labels]
    logits[:, 3] = -9.0
    return logits, labels


def test_calibration_error_is_the_mean_distance_of_confidence_and_accuracy(
    guesses: tuple[Tensor, Tensor],
) -> None:
    logits, labels = guesses
    confidence, predicted = logits.double().softmax(-1).max(-1)
    error = 0.0
    for number in range(BINS):
        inside = (confidence >= number / BINS) & (confidence < (number + 1) / BINS)
        if inside.any():
            distance = confidence[inside].mean() - (predicted == labels)[inside].double().mean()
            error += float(inside.double().mean() * distance.abs())
    assert error > 0.02
    assert Classifier.score(logits, labels)["calibration_error"] == pytest.approx(error, abs=1e-6)
    bins = Classifier.report(logits, labels).bins
    assert sum(each.samples for each in bins) == len(labels)
    of_bins = sum(each.samples * abs(each.confidence - each.accuracy) for each in bins if each.samples)  # type: ignore[operator]
    assert of_bins / len(labels) == pytest.approx(error, abs=1e-6)


def test_logits_within_0_and_1_are_no_probabilities() -> None:
    labels = torch.arange(10)
    score = Classifier.score(torch.eye(10), labels)
    assert score["calibration_error"] == pytest.approx(1 - math.e / (math.e + 9))


def test_scores_of_each_class_are_those_of_scikit_learn(guesses: tuple[Tensor, Tensor]) -> None:
    logits, labels = guesses
    report = Classifier.report(logits, labels)
    confusion = torch.zeros(5, 5, dtype=torch.int64)
    for label, guess in zip(labels.tolist(), logits.argmax(-1).tolist(), strict=True):
        confusion[label, guess] += 1
    assert report.confusion == confusion.tolist()
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, logits.argmax(-1), labels=range(5), zero_division=0
    )
    assert report.precision[:3] == pytest.approx(precision[:3]) and report.precision[3] is None
    assert report.recall[:4] == pytest.approx(recall[:4]) and report.recall[4] is None
    assert report.f1[:4] == pytest.approx(f1[:4]) and f1[3] == 0
    assert Classifier.score(logits, labels)["f1_worst"] == 0
    common = labels < 3
    expected = precision_recall_fscore_support(labels[common], logits.argmax(-1)[common], labels=range(3))
    score = Classifier.score(logits[common], labels[common])
    assert score["f1_worst"] == pytest.approx(min(expected[2]))


def test_outputs_that_are_no_number_are_scored_and_reported(guesses: tuple[Tensor, Tensor]) -> None:
    logits, labels = guesses
    broken = torch.full_like(logits, math.nan)
    assert Classifier.score(broken, labels)["accuracy"] < 0.5
    assert sum(each.samples for each in Classifier.report(broken, labels).bins) == len(labels)


def test_bits_per_byte_and_token_accuracy_are_means_over_tokens() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 7, 256, generator=generator)
    targets = torch.randint(256, (3, 7), generator=generator)
    targets[0] = logits[0].argmax(-1)
    surprise = -logits.double().softmax(-1).gather(-1, targets[..., None]).log2()  # (B, T, 1)
    score = LanguageModel.score(logits, targets)
    assert score["bits_per_byte"] == pytest.approx(float(surprise.mean()))
    assert score["perplexity"] == pytest.approx(2 ** float(surprise.mean()))
    assert score["token_accuracy"] == pytest.approx(float((logits.argmax(-1) == targets).double().mean()))


def test_a_run_of_a_classifier_has_a_report_of_each_split() -> None:
    run = train("mlp", epochs=1, report=lambda line: None)
    for split, scores in (("validation", run.validation), ("test", run.test)):
        content = json.loads((run.folder / f"evaluation_{split}.json").read_bytes())
        assert (content["schema"], content["split"]) == (1, split)
        report = class_report.read(run.folder, split)
        assert report is not None
        right = sum(row[label] for label, row in enumerate(report.confusion))
        assert right / sum(map(sum, report.confusion)) == pytest.approx(scores["accuracy"])
    assert class_report.read(run.folder, "train") is None
