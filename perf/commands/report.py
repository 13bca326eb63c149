"""`hotlap report`: the table of a results file on the terminal or in Markdown, or a picture."""

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
    brief: Annotated[
        Path | None, typer.Option(help="The same in one row a model: the fastest right backend.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="A picture: the speed-ups with their intervals.")] = None,
) -> None:
    """Print the table of a results file again."""
    from ..measure.rundir import latest
    from ..reports import brief as by_fastest
    from ..reports import matrix as by_model
    from ..reports import picture
    from ..reports import report as by_case
    from ..terms import result

    stored = result.read(results or latest() / "results.json")
    outputs = (
        (markdown, by_case.markdown),
        (matrix, by_model.markdown),
        (brief, by_fastest.markdown),
        (svg, picture.svg),
    )
    for path, text_of in outputs:
        if path is not None:
            files.put(path, text_of(stored).encode())
    if all(path is None for path, _ in outputs):
        by_case.show(stored)
