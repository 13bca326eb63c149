"""`hotlap report`: the table of a results file, on the terminal or in Markdown."""

from __future__ import annotations

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
) -> int:
    """Print the table of a results file again."""
    from ..measure.rundir import latest
    from ..reports import matrix as by_model
    from ..reports import report as by_case
    from ..terms import result

    stored = result.read(results or latest() / "results.json")
    if markdown is not None:
        files.put(markdown, by_case.markdown(stored).encode())
    if matrix is not None:
        files.put(matrix, by_model.markdown(stored).encode())
    if markdown is None and matrix is None:
        by_case.show(stored)
    return 0
