"""`hotlap runs`: the trainings that are on the disk. Imports no torch."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..perf.terms import escape, printer
from ..perf.terms.reasons import Misuse
from . import promotion, records, runs

if TYPE_CHECKING:
    from rich.table import Table

    from .records import StoredTraining

# Metrics of a run that a list shows.
MOST_METRICS = 3


def show_runs(
    action: Annotated[
        Literal["list", "show", "compare", "prune", "promote"],
        typer.Argument(help="list all, show one, compare two or more, prune old ones, promote one."),
    ] = "list",
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Of list: only networks whose name matches one of these globs. Else: IDs.",
        ),
    ] = None,
    keep: Annotated[
        int, typer.Option(min=0, help="Of prune: so many of the newest finished runs of each network stay.")
    ] = 5,
    evaluation: Annotated[
        Path | None,
        typer.Option(help="Of promote: the results file of hotlap run that evaluates its checkpoint."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Of prune: remove, and not only say what would be.")] = (
        False
    ),
) -> int:
    """List, show, compare, prune and promote trainings of runs/train.

    Scores are those of the validation split; show has a promoted run's on the test split too.
    """
    from ..perf.reports.console import console

    asked = names or []
    if action == "list":
        console().print(listed(asked))
    elif action == "show":
        if len(asked) != 1:
            raise Misuse("hotlap runs show ID: name one run")
        shown(records.by_name(asked[0]))
    elif action == "compare":
        if len(asked) < 2:
            raise Misuse("hotlap runs compare ID ID: name two runs or more")
        for table in compared([records.by_name(ID) for ID in asked]):
            console().print(table)
        printer.line("one training each: another seed moves the scores too")
    elif action == "promote":
        promoted(asked, evaluation)
    else:
        prune(keep, yes)
    return 0


def listed(globs: list[str]) -> Table:
    """Returns a table of all runs, oldest first; a damaged one is a row with its reason."""
    from rich.table import Table

    table = Table("ID", "network", "state", "seed", "epochs", "validation split", "time", "commit")
    for folder in records.folders():
        try:
            record = records.read(folder)
        except Misuse as error:
            table.add_row(folder.name, "", escape.log(str(error)))
            continue
        name = record.settings.name
        if globs and not any(fnmatch.fnmatchcase(name, glob) for glob in globs):
            continue
        scores = [
            f"{metric} {number(value)}" for metric, value in [*record.validation.items()][:MOST_METRICS]
        ]
        cells = (
            folder.name,
            name,
            state(record),
            str(record.settings.seed),
            str(record.settings.epochs),
            ", ".join(scores),
            f"{record.seconds:.0f} s" if record.finished else "",
            str(record.environment.get("commit") or ""),
        )
        table.add_row(*map(escape.log, cells))
    return table


def shown(record: StoredTraining) -> None:
    """Prints one run: what it is, its scores, where it took place, all settings, its files."""
    on = "" if record.finished else f": hotlap train --resume {record.id} goes on"
    lines = [
        f"{record.settings.name}, {record.began} UTC, {state(record)}{on}",
        *(f"validation {metric} {number(value)}" for metric, value in record.validation.items()),
        *(f"test {metric} {number(value)}" for metric, value in record.test.items() if record.promoted),
        *(f"promoted {key}: {records.text(value)}" for key, value in record.promoted.items()),
        *(f"{key}: {records.text(value)}" for key, value in record.environment.items() if value),
        "",
        *(f"{key}={records.text(value)}" for key, value in record.configuration.items() if value is not None),
        "",
        *(str(path) for path in sorted(record.folder.rglob("*")) if path.is_file()),
    ]
    for line in lines:
        printer.line(escape.log(line))


def state(record: StoredTraining) -> str:
    return "promoted" if record.promoted else "finished" if record.finished else "unfinished"


def promoted(asked: list[str], evaluation: Path | None) -> None:
    """Promotes one run by its evaluation, and says on what it stands."""
    if len(asked) != 1 or evaluation is None:
        raise Misuse(
            "hotlap runs promote ID --evaluation RESULTS.json: a run is promoted by what hotlap run measured"
            " of its checkpoint"
        )
    content = promotion.promote(records.by_name(asked[0]).folder, evaluation)
    cases = ", ".join(each["case"] for each in content["stands_on"])
    by = f"{content['by']} ({content['by_is']})"
    printer.line(escape.log(f"{asked[0]} promoted by {by}: {content['checkpoint']}, {cases}"))


def compared(chosen: list[StoredTraining]) -> list[Table]:
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


def prune(keep: int, yes: bool) -> None:
    """Removes old finished runs, or says which would be."""
    old = records.superfluous(keep)
    for folder in old:
        size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
        printer.line(escape.log(f"{folder.name}  {size / 1e6:.1f} MB"))
        if yes:
            records.remove(folder)
    if yes or not old:
        printer.line(f"{len(old)} runs removed from {runs.root()}")
    else:
        printer.line(f"{len(old)} runs would be removed from {runs.root()}; hotlap runs prune --yes does it")


def against(first: float | None, value: float | None) -> str:
    """Returns a score and by how much it is above that of the first run."""
    if first is None or value is None:
        return number(value)
    return f"{number(value)} ({value - first:+.4g})"


def number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
