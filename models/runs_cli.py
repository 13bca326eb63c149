"""`hotlap runs`: the trainings that are on the disk. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..perf.terms import escape, files, printer
from ..perf.terms.reasons import Misuse
from . import promotion, records, runs, selection, tables
from .records import StoredTraining


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
    state: Annotated[
        Literal["finished", "unfinished", "promoted"] | None,
        typer.Option(help="Of list: only runs in this state; promoted ones are finished too."),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Of list: only runs with this setting, such as model.width=64."
        ),
    ] = None,
    sort: Annotated[
        str, typer.Option(metavar="METRIC", help="Of list: highest first; lowest first with - before it.")
    ] = "",
    curves: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Of show and compare: draw what was logged.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of show and compare: write a page; - is stdout.")
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
    asked = names or []
    refuse_misplaced(action, ("list",), {"--state": state, "--where": where, "--sort": sort})
    refuse_misplaced(action, ("show", "compare"), {"--curves": curves, "--html": html})
    if action == "list":
        listed(asked, state, where or [], sort)
    elif action == "show":
        if len(asked) != 1:
            raise Misuse("hotlap runs show ID: name one run")
        shown(records.by_name(asked[0]), curves, html)
    elif action == "compare":
        if len(asked) < 2:
            raise Misuse("hotlap runs compare ID ID: name two runs or more")
        compared([records.by_name(ID) for ID in asked], curves, html)
    elif action == "promote":
        promoted(asked, evaluation)
    else:
        prune(keep, yes)
    return 0


def refuse_misplaced(action: str, actions: tuple[str, ...], options: dict[str, object]) -> None:
    """Raises Misuse for an option of other actions."""
    for option, value in options.items():
        if value and action not in actions:
            raise Misuse(f"{option} goes with hotlap runs {' and '.join(actions)}, not with {action}")


def listed(globs: list[str], state: str | None, conditions: list[str], sort: str) -> None:
    """Prints a table of runs, oldest first unless they are sorted."""
    from ..perf.reports.console import console

    every, damaged = records.every()
    chosen = selection.where(selection.named(every, globs), conditions)
    if state is not None:
        chosen = selection.in_state(chosen, state)
    if sort:
        chosen = selection.ordered(chosen, sort)
    console().print(tables.listed(chosen, damaged))


def shown(record: StoredTraining, curves: Path | None, html: Path | None) -> None:
    """Prints one run, and writes its picture and its page."""
    draw([record], curves, html)
    for line in tables.lines(record) if str(html) != "-" else ():
        printer.line(escape.log(line))


def compared(chosen: list[StoredTraining], curves: Path | None, html: Path | None) -> None:
    """Prints what runs do not share, and writes their picture and their page."""
    from ..perf.reports.console import console

    draw(chosen, curves, html)
    if str(html) == "-":
        return
    for table in tables.compared(chosen):
        console().print(table)
    printer.line("one training each: another seed moves the scores too")


def draw(chosen: list[StoredTraining], curves: Path | None, html: Path | None) -> None:
    """Writes a picture and a page of runs, where they are asked for. Raises Misuse."""
    if curves is None and html is None:
        return
    from . import pictures  # matplotlib takes a second
    from .page import page

    if curves is not None:
        if curves.suffix not in ("", ".png") or str(curves) == "-":
            raise Misuse(f"--curves {curves}: the picture is a PNG; name a file .png")
        panels = pictures.panels(chosen)
        if not panels:
            raise Misuse(f"nothing to draw: there is no {chosen[0].folder / runs.LOGS / 'csv'}/*/metrics.csv")
        files.put(curves, pictures.png(panels, [record.id for record in chosen]))
    if html is not None:
        files.put(html, page(chosen).encode())


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
