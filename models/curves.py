"""What a run logged over its steps, from the CSV files of its sessions. Imports no torch.

Lightning names a metric as the module does: `validation_accuracy`, `val_loss`. Of two metrics that
differ in their split alone, one panel shows both.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..perf.terms import stored
from ..perf.terms.reasons import Unreadable
from . import runs

# Columns that are no metrics.
PLACE = ("step", "epoch")
# How the name of a metric says its split.
SPLIT = re.compile(r"(?:(?P<train>train)|(?P<validation>val|validation)|(?P<test>test))[_/]")

# Optimizer step and value, in the order of the steps.
Points = list[tuple[int, float]]


class Curve(NamedTuple):
    """One metric of one run over its steps."""

    # Which run of several it is.
    run: int
    # train or validation.
    split: str
    points: Points


def read(folder: Path, scored: int = 0) -> dict[str, Points]:
    """Returns what a run logged, metric -> points; empty where it kept no CSV.

    Of steps that a resumed session repeats, its own count. The test split is left out: by name,
    and, as a module may give its metrics any, by place, as the last rows of a finished run are its
    scores on `scored` splits. Raises Unreadable for a damaged file.
    """
    sessions = (folder / runs.LOGS / "csv").glob("*/metrics.csv")
    rows: list[dict[str, float]] = []
    for path in sorted(sessions, key=lambda path: (len(path.parent.name), path.parent.name)):
        session = list(read_rows(path))
        if session:
            first = min(row["step"] for row in session)
            rows = [*(row for row in rows if row["step"] < first), *session]
    curves: dict[str, Points] = {}
    for row in rows[: len(rows) - scored]:
        for name, value in row.items():
            if name not in PLACE and split_of(name)[0] != "test":
                curves.setdefault(name, []).append((int(row["step"]), value))
    return curves


def read_rows(path: Path) -> Iterator[dict[str, float]]:
    """Yields what each row of a session's file holds; a last one that a kill cut is left out.

    Raises Unreadable.
    """
    text = stored.content(path).decode(errors="replace")
    whole = text[: text.rfind("\n") + 1]
    for row in csv.DictReader(io.StringIO(whole)):
        try:
            values = {name: float(value) for name, value in row.items() if value}
            yield {**values, "step": int(row["step"])}
        except (KeyError, TypeError, ValueError) as error:
            raise Unreadable(f"{path}: not the log of a training: {stored.line(error)}") from None


def split_of(name: str) -> tuple[str, str]:
    """Returns the split that a metric is of, train where its name says none, and the rest of it."""
    match = SPLIT.match(name)
    if match is None or match.end() == len(name):
        return "train", name
    return str(match.lastgroup), name[match.end() :]


def latest(curves: Mapping[str, Points]) -> dict[str, float]:
    """Returns the last value of each metric of the validation split, by its name without it."""
    by_split = {split_of(name): points for name, points in curves.items()}
    return {metric: points[-1][1] for (split, metric), points in by_split.items() if split == "validation"}


def by_metric(logged: Sequence[Mapping[str, Points]]) -> dict[str, list[Curve]]:
    """Returns the curves of several runs, metric without its split -> curves; loss comes first."""
    groups: dict[str, list[Curve]] = {}
    for run, curves in enumerate(logged):
        for name, points in curves.items():
            split, metric = split_of(name)
            groups.setdefault(metric, []).append(Curve(run, split, points))
    return dict(sorted(groups.items(), key=lambda item: (item[0] != "loss", item[0])))
