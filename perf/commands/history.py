"""`hotlap history`: what stored results say over time; or the change points of a series in a CSV
file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terms import files, printer, units
from ..terms.case import Better
from ..terms.reasons import Misuse


def history(
    results: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Results files, or folders with any number of them. Default: the folder of all runs."
        ),
    ] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(help="Only cases whose id matches this glob; may be given several times."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Only this metric or counter; may be given several times. Default: all."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with a chart of each series.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the verdict and all series; - is stdout.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the verdict as Markdown.")] = None,
    index: Annotated[
        Path | None,
        typer.Option(help="What was read before. Default: history.sqlite in the folder of all runs."),
    ] = None,
    acknowledged: Annotated[
        Path | None,
        typer.Option(
            help="Alarms that are accepted, each with its reason: a TOML file. Default: history.toml here, if"
            " there is one."
        ),
    ] = None,
    bisect: Annotated[
        str,
        typer.Option(
            help="Find the commit that made this case slower: git bisect, with hotlap ab as its test.",
            metavar="CASE",
        ),
    ] = "",
    budget: Annotated[str, typer.Option(help="Of each step of --bisect.")] = "3m",
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Instead of results: a file with one measurement a row, oldest first, and a header."
        ),
    ] = None,
    column: Annotated[str, typer.Option(help="The column of --csv with the measurements.")] = "",
    better: Annotated[Better, typer.Option(help="Which way the column of --csv improves.")] = "lower",
) -> int:
    """Find where measurements changed their level for good.

    Exit: 0 no alarm that is not acknowledged, 1 a confirmed worsening within the last 9 points, 3
    could not tell.
    """
    # Here, because they bring SQLite.
    from ..history import reading, series
    from ..history.acknowledged import chosen
    from ..history.csv_column import show_changes
    from ..history.culprit import hunt
    from ..history.document import document, show_series
    from ..history.page import page
    from ..history.together import together
    from ..reports.output import known, write

    if csv is not None:
        if results or not column:
            raise Misuse("--csv FILE goes with --column NAME, and without results")
        if case or metric or html or markdown or bisect or acknowledged:
            raise Misuse(
                "--csv goes with --column, --better and --json alone: its rows have no dates, no cases"
            )
        return show_changes(csv, column, better, json)
    if better != "lower":
        raise Misuse("--better goes with --csv: results say themselves which way they improve")
    accepted = chosen(acknowledged)
    stored = reading.read(results or [], index or files.runs_folder() / "history.sqlite", printer.counter)
    points = reading.wanted(stored, case or [], metric or [])
    by_case, borders = series.series(points, printer.counter), series.borders(points, stored.settings)
    all_series = [*together(by_case), *by_case]
    printer.counter()
    if bisect:
        of_case = [each for each in all_series if each.case == bisect]
        return hunt(of_case, bisect, units.seconds(budget), printer.line)
    verdict = reading.noted(series.judge(all_series, accepted, whole=not (case or metric)), stored)
    with known(verdict):
        write(verdict, {"markdown": markdown}, github=False)
        if json is not None:
            files.put(json, document(verdict, all_series, borders, stored.settings, stored.problems))
        if html is not None:
            files.put(html, page(verdict, all_series, borders, accepted).encode())
    if not any(str(path) == "-" for path in (json, html, markdown)):
        good = stored.files - len(stored.problems)
        show_series(verdict, all_series, borders, f"{good} files ({stored.read} new)")
    return verdict.exit_status
