"""`hotlap history`: the change points of a series in a CSV file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def history(
    csv: Annotated[Path, typer.Option(help="A file with one measurement a row, oldest first, and a header.")],
    column: Annotated[str, typer.Option(help="The column with the measurements.")],
    json: Annotated[Path | None, typer.Option(help="Write the change points; - is stdout.")] = None,
) -> int:
    """Find where a series of measurements changed its level for good."""
    import msgspec

    from . import history as detector
    from . import result
    from .reasons import Misuse

    try:
        found = detector.change_points(series(csv, column))
    except ValueError as error:
        if isinstance(error, Misuse):
            raise
        raise Misuse(f"{csv}: {error}") from None
    content = msgspec.json.format(msgspec.json.encode({"schema": 1, "series": csv.name, "column": column, "change_points": found}), indent=1) + b"\n"
    if json is None:
        for one in found:
            print(f"row {one.index + 1}: {one.effect:+.1%} (p {one.p:.3g})")
        if not found:
            print("no change of level")
    elif str(json) == "-":
        sys.stdout.write(content.decode())
    else:
        try:
            result.write(json, content)
        except (OSError, ValueError) as error:
            raise Misuse(f"cannot write {json}: {getattr(error, 'strerror', None) or error}") from None
    return 0


def series(path: Path, column: str) -> list[float]:
    """The numbers of one column. Raises Misuse, with exit status 4 where the file is there and is none."""
    import csv

    from . import plugins
    from .reasons import Misuse
    from .verdict import Unreadable

    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            if column not in (reader.fieldnames or ()):
                raise plugins.Unknown(f"column of {path}", column, reader.fieldnames or ())
            values = []
            for row in reader:
                try:
                    values.append(float(row[column]))
                except (TypeError, ValueError):
                    raise Unreadable(f"{path}: row {reader.line_num} has no number under {column}") from None
            return values
    except FileNotFoundError:
        raise Misuse(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Unreadable(f"{path}: not a CSV file: {error}") from None
