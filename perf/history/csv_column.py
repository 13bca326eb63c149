"""Change points of a column of a CSV file: measurements that no results file holds."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from ..lookup.plugins import Unknown
from ..stats.changes import ChangePoint
from ..terms import printer, stored
from ..terms.case import Better
from ..terms.files import put
from ..terms.reasons import Unreadable
from ..terms.result import LEAST, MOST
from ..terms.verdict import EXIT
from .archive import Point
from .series import Series, alternation, of_points

# A million rows of some columns.
MOST_BYTES = 64 << 20
# Columns that a message names.
MOST_NAMED = 30


class Column(NamedTuple):
    """One column of a file.

    numbers: row, counted from 0 below the header -> measurement. gaps: rows whose cell is empty.
    refused: rows whose number cannot be one of a time or a size: 0, negative, NaN, out of bounds.
    """

    numbers: dict[int, float]
    gaps: list[int]
    refused: list[int]

    def notes(self) -> list[str]:
        """Returns a line on the gaps and a line on what was refused, where there are any."""
        lines = []
        if self.gaps:
            lines.append(f"{_rows(self.gaps)} left out: an empty cell")
        if self.refused:
            lines.append(f"{_rows(self.refused)} left out: no measurement, as 0, negative or beyond bounds")
        return lines


def _rows(rows: Sequence[int]) -> str:
    """Returns how many rows, and which is the first, counted from 1 below the header."""
    return f"row {rows[0] + 1}" if len(rows) == 1 else f"{len(rows)} rows from row {rows[0] + 1} on"


def show_changes(path: Path, column: str, better: Better, json: Path | None) -> int:
    """Prints the change points of a column, or writes them as JSON. Returns the exit status of
    `hotlap history`: 1 for a worsening that is the news and confirmed, 3 for one that is not yet.

    Their index is a row of the file, counted from 0 below the header. Raises Misuse.
    """
    cells = read(path, column)
    judged = series_of(path, column, better, cells)
    steps = [*judged.changes, *([judged.young] if judged.young else [])]
    if json is not None:
        content = {"schema": 1, "series": path.name, "column": column}
        content |= {"change_points": [_by_row(judged, change) for change in judged.changes]}
        content |= {"provisional": judged.young and _by_row(judged, judged.young), "better": better}
        content |= {"alarm": judged.alarm and _by_row(judged, judged.alarm)}
        content |= {"alternating": judged.alternating, "left_out": cells.notes()}
        put(json, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    else:
        for note in cells.notes():
            printer.line(note)
        for change in steps:
            what = "worse" if judged.worse(change) else "better"
            state = ", provisional" if change is judged.young else ""
            news = ": an alarm" if change is judged.alarm else ""
            row = _by_row(judged, change).index + 1
            printer.line(f"row {row}: {change.effect:+.1%}, {what} (p {change.p:.3g}{state}){news}")
        if judged.alternating is not None:
            printer.line(alternation(judged, judged.alternating))
        elif not steps:
            printer.line("no change of level")
    return EXIT["pass" if judged.alarm is None else "regression" if judged.confirmed else "inconclusive"]


def _by_row(series: Series, change: ChangePoint) -> ChangePoint:
    """Returns the change with its index among the rows of the file, of which some are left out."""
    return msgspec.structs.replace(change, index=int(series.points[change.index].measured))


def series_of(path: Path, column: str, better: Better, cells: Column | None = None) -> Series:
    """Returns a column as a series, a point each row that has a measurement. Raises Misuse."""
    numbers = (cells or read(path, column)).numbers
    return of_points(
        [
            Point(str(path), float(row), path.name, column, "time", "", "", number, number, "", better)
            for row, number in numbers.items()
        ]
    )


def read(path: Path, column: str) -> Column:
    """Returns the numbers of one column.

    Raises Misuse, with exit status 4 where the file is there and is none: where a cell holds text,
    or no row a measurement.
    """
    content = stored.content(path, MOST_BYTES)
    cells, problem = Column({}, [], []), ""
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        header = next(reader, [])
        if column not in header:
            raise Unknown(f"column of {path}", column, map(stored.line, header[:MOST_NAMED]))
        at, rows = header.index(column), [(reader.line_num, line) for line in reader]
        while rows and not rows[-1][1]:
            rows.pop()  # empty lines at the end are no gaps
        for row, (number_of_line, line) in enumerate(rows):
            text = line[at].strip() if at < len(line) else ""
            if not text:
                problem = problem or f"row {number_of_line} has no number under {column}"
                cells.gaps.append(row)
                continue
            try:
                number = float(text)
            except ValueError:
                raise Unreadable(f"{path}: row {number_of_line} has no number under {column}") from None
            if LEAST < number < MOST:
                cells.numbers[row] = number
            else:
                problem = problem or f"row {number_of_line} has no measurement under {column}"
                cells.refused.append(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise Unreadable(f"{path}: not a CSV file: {stored.line(error)}") from None
    if problem and not cells.numbers:
        raise Unreadable(f"{path}: {problem}, nor has any other")
    return cells
