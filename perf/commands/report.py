"""`hotlap report`: the table of a results file on the terminal or in Markdown, or a picture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..terms import files


def report(
    results: Annotated[Path | None, typer.Argument(help="A results.json. Default: the latest run.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown to this file; - is stdout.")] = None,
    matrix: Annotated[
        Path | None,
        typer.Option(help="The same as models x backends, a table for each target and precision."),
    ] = None,
    brief: Annotated[
        Path | None, typer.Option(help="The same in one row a model: the fastest right backend.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="A picture: the speed-ups with their intervals.")] = None,
) -> int:
    """Print the table of a results file again."""
    from ..measure import rundir
    from ..reports import brief as briefs
    from ..reports import matrix as matrices
    from ..reports import picture
    from ..reports import report as tables
    from ..terms import result
    from ..terms.reasons import Misuse

    found = result.read(results or rundir.latest() / "results.json")
    if all(path is None for path in (markdown, matrix, brief, svg)):
        console = tables.console()
        for line in tables.setting(found):
            console.print(line, highlight=False)
        console.print(tables.table(found.results, console.width))
        for line in tables.reasons(found.results):
            console.print(f"  {line}", highlight=False, markup=False)
        return 0
    for path, made in (
        (markdown, tables.markdown),
        (matrix, matrices.markdown),
        (brief, briefs.markdown),
        (svg, picture.svg),
    ):
        if str(path) == "-":
            sys.stdout.write(made(found))
        elif path is not None:
            try:
                files.write(path, made(found).encode())
            except OSError as error:
                raise Misuse(f"cannot write {path}: {error.strerror}") from None
    return 0
