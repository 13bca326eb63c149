"""Change points of a column of a CSV file: measurements that no results file holds."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..lookup.plugins import Unknown
from ..stats.changes import ChangePoint, change_points
from ..terms import stored
from ..terms.files import put
from ..terms.reasons import Misuse, Unreadable
from ..terms.result import LEAST, MOST

# A million rows of some columns.
MOST_BYTES = 64 << 20
# Columns that a message names.
MOST_NAMED = 30


def show_changes(path: Path, column: str, json: Path | None) -> int:
    """Prints the change points of a column, or writes them as JSON. Returns the exit status.

    Raises Misuse.
    """
    changes = changes_of(path, column)
    if json is not None:
        content = {"schema": 1, "series": path.name, "column": column, "change_points": changes}
        put(json, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
        return 0
    for change in changes:
        print(f"row {change.index + 1}: {change.effect:+.1%} (p {change.p:.3g})")
    if not changes:
        print("no change of level")
    return 0


def changes_of(path: Path, column: str) -> Sequence[ChangePoint]:
    """Returns the change points of a column. Raises Misuse."""
    try:
        return change_points(values(path, column))
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
