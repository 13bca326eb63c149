"""What a classifier gets right and wrong, class by class: evaluation_SPLIT.json beside a run's
scores. Imports no torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from ..perf.terms import stored
from . import runs

# 1: the first version of evaluation_SPLIT.json.
SCHEMA = 1


@dataclass(frozen=True)
class ConfidenceBin:
    """The samples whose highest probability lies from `low` to below `high`."""

    low: float
    high: float
    samples: int
    # Mean of the highest probabilities; None without samples.
    confidence: float | None
    # Share of the samples that were classified right.
    accuracy: float | None


@dataclass(frozen=True)
class ClassReport:
    """A classifier on one split."""

    # (C, C): samples of a class (row) that were taken for a class (column).
    confusion: list[list[int]]
    # (C,): of the samples that were taken for a class, the share that is of it. None: none was.
    precision: list[float | None]
    # (C,): of the samples of a class, the share that was taken for it. None: there is none.
    recall: list[float | None]
    # (C,): harmonic mean of the two. None where both are.
    f1: list[float | None]
    # From confidence 0 to 1, of equal width.
    bins: list[ConfidenceBin]


def path(folder: Path, split: str) -> Path:
    return folder / f"evaluation_{split}.json"


def write(folder: Path, split: str, report: ClassReport) -> None:
    runs.write_json(path(folder, split), {"schema": SCHEMA, "split": split, **asdict(report)})


def read(folder: Path, split: str) -> ClassReport | None:
    """Reads a run's report of a split; None where it has none. Raises Unreadable."""
    file = path(folder, split)
    if not file.exists():
        return None
    return stored.decode(file, stored.content(file), ClassReport, "not an evaluation of a classifier")
