"""Change points of a column of a CSV file: measurements that no results file holds."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import msgspec

from ..lookup.plugins import Unknown
from ..stats.changes import change_points, provisional
from ..terms import printer, stored
from ..terms.case import Better
from ..terms.files import put
from ..terms.reasons import Misuse, Unreadable
from ..terms.result import LEAST, MOST
from ..terms.verdict import EXIT
from .archive import Point
from .series import Series

# A million rows of some columns.
MOST_BYTES = 64 << 20
# Columns that a message names.
MOST_NAMED = 30


def show_changes(path: Path, column: str, better: Better, json: Path | None) -> int:
    """Prints the change points of a column, or writes them as JSON. Returns the exit status of
    `hotlap history`: 1 for a worsening that is the news and confirmed, 3 for one that is not yet.

    Raises Misuse.
    """
    judged = series_of(path, column, better)
    steps = [*judged.changes, *([judged.young] if judged.young else [])]
    if json is not None:
        content = {"schema": 1, "series": path.name, "column": column, "change_points": judged.changes}
        content |= {"provisional": judged.young, "better": better, "alarm": judged.alarm}
        put(json, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    else:
        for change in steps:
            what = "worse" if judged.worse(change) else "better"
            state = ", provisional" if change is judged.young else ""
            news = ": an alarm" if change is judged.alarm else ""
            printer.line(
                f"row {change.index + 1}: {change.effect:+.1%}, {what} (p {change.p:.3g}{state}){news}"
            )
        if not steps:
            printer.line("no change of level")
    return EXIT["pass" if judged.alarm is None else "regression" if judged.confirmed else "inconclusive"]


def series_of(path: Path, column: str, better: Better) -> Series:
    """Returns a column as a series, a point each row. Raises Misuse."""
    numbers = values(path, column)
    points = [
        Point(str(path), float(row), path.name, column, "time", "", "", number, number, "", better)
        for row, number in enumerate(numbers)
    ]
    try:
        steps = change_points(numbers)
        return Series(tuple(points), steps, provisional(numbers, steps))
    except Misuse:
        raise
    except ValueError as error:
        raise Misuse(f"{path}: {error}") from None


def values(path: Path, column: str) -> list[float]:
    """Returns the numbers of one column.

    Raises Misuse, with exit status 4 where the file is there and is none.
    """
    content = stored.content(path, MOST_BYTES)
    try:
        reader = csv.DictReader(io.StringIO(content.decode(), newline=""))
        if column not in (reader.fieldnames or ()):
            raise Unknown(
                f"column of {path}", column, map(stored.line, (reader.fieldnames or [])[:MOST_NAMED])
            )
        numbers = []
        for row in reader:
            try:
                numbers.append(float(row[column]))
            except (TypeError, ValueError):
                raise Unreadable(f"{path}: row {reader.line_num} has no number under {column}") from None
            if not LEAST < numbers[-1] < MOST:
                raise Unreadable(f"{path}: row {reader.line_num} has no measurement under {column}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise Unreadable(f"{path}: not a CSV file: {stored.line(error)}") from None
    return numbers
