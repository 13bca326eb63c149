"""Runs on the disk as tables and lines of a terminal. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..perf.terms import escape
from . import class_report, records
from .records import StoredTraining

if TYPE_CHECKING:
    from rich.table import Table

# Metrics of a run that a list shows.
MOST_METRICS = 3


def listed(chosen: Sequence[StoredTraining], damaged: Mapping[str, str]) -> Table:
    """Returns a table of runs; damaged ones, ID -> why, are its last rows."""
    from rich.table import Table

    table = Table("ID", "network", "state", "seed", "epochs", "validation split", "time", "commit")
    for record in chosen:
        scores = [
            f"{metric} {number(value)}" for metric, value in [*record.validation.items()][:MOST_METRICS]
        ]
        cells = (
            record.id,
            record.settings.name,
            record.state,
            str(record.settings.seed),
            str(record.settings.epochs),
            ", ".join(scores) + ("" if record.finished or not scores else f" at step {record.last_step}"),
            f"{record.seconds:.0f} s" if record.finished else "",
            str(record.environment.get("commit") or ""),
        )
        table.add_row(*map(escape.log, cells))
    for ID, why in damaged.items():
        table.add_row(escape.log(ID), "", escape.log(why))
    return table


def lines(record: StoredTraining) -> list[str]:
    """Returns one run: what it is, its scores, where it took place, all settings, its files."""
    on = "" if record.finished else f": hotlap train --resume {record.id} goes on"
    last = "" if record.finished else f" at step {record.last_step}"
    tested = class_report.path(record.folder, "test")
    return [
        f"{record.settings.name}, {record.began} UTC, {record.state}{on}",
        *(f"validation {metric} {number(value)}{last}" for metric, value in record.validation.items()),
        *(f"test {metric} {number(value)}" for metric, value in record.test.items() if record.promoted),
        *(f"promoted {key}: {records.text(value)}" for key, value in record.promoted.items()),
        *(f"{key}: {records.text(value)}" for key, value in record.environment.items() if value),
        "",
        *(f"{key}={records.text(value)}" for key, value in record.configuration.items() if value is not None),
        "",
        *(
            str(path)
            for path in sorted(record.folder.rglob("*"))
            if path.is_file() and (path != tested or record.promoted)
        ),
    ]


def compared(chosen: Sequence[StoredTraining]) -> list[Table]:
    """Returns tables of what the runs do not share: settings first, then scores, then places."""
    from rich.table import Table

    tables = []
    for title, part in (("setting", "configuration"), ("place", "environment")):
        table = Table(title, *(record.id for record in chosen))
        differing = records.differences(chosen, part)
        for key, values in differing.items():
            table.add_row(escape.log(key), *(escape.log(records.text(value)) for value in values))
        if not differing:
            table.add_row("all the same")
        tables.append(table)
    scores = Table("validation split", *(record.id for record in chosen))
    for metric in dict.fromkeys(metric for record in chosen for metric in record.validation):
        first, *others = [record.validation.get(metric) for record in chosen]
        cells = [number(first), *(against(first, value) for value in others)]
        scores.add_row(escape.log(metric), *cells)
    return [tables[0], scores, tables[1]]


def against(first: float | None, value: float | None) -> str:
    """Returns a score and by how much it is above that of the first run."""
    if first is None or value is None:
        return number(value)
    return f"{number(value)} ({value - first:+.4g})"


def number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
