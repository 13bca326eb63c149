"""`hotlap report`: the table of a results file, on the terminal or in Markdown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def report(
    results: Annotated[Path | None, typer.Argument(help="A results.json. Default: the latest run.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown to this file; - is stdout.")] = None,
) -> int:
    """Print the table of a results file again."""
    from . import report as tables
    from . import result, rundir
    from .reasons import Misuse

    found = result.read(results or rundir.latest() / "results.json")
    if markdown is None:
        console = tables.console()
        for line in tables.setting(found):
            console.print(line, highlight=False)
        console.print(tables.table(found.results, console.width))
        for line in tables.reasons(found.results):
            console.print(f"  {line}", highlight=False, markup=False)
        return 0
    if str(markdown) == "-":
        sys.stdout.write(tables.markdown(found))
    else:
        try:
            result.write(markdown, tables.markdown(found).encode())
        except OSError as error:
            raise Misuse(f"cannot write {markdown}: {error.strerror}") from None
    return 0
