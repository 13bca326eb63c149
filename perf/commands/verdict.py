"""`hotlap verdict`: what a judging command wrote with --json, in every other form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def verdict(
    file: Annotated[
        Path,
        typer.Argument(help="A verdict, or a ZIP archive that holds verdict.json, such as CI's artefact."),
    ],
    json: Annotated[Path | None, typer.Option(help="Write the verdict again; - is stdout.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML.")] = None,
    sarif: Annotated[Path | None, typer.Option(help="Write SARIF 2.1.0.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown for a pull request.")] = None,
    github: Annotated[
        bool,
        typer.Option(
            "--github", help="Print GitHub's annotations and append the Markdown to its step summary."
        ),
    ] = False,
) -> int:
    """Show a verdict that ab, gate, history, kernels or review wrote with --json.

    The file may come from anybody: it is decoded by its schema and written anew, and nothing else
    of an archive is looked at. Exit: as the command that wrote it; 4 where it is no verdict.
    """
    from ..reports.output import publish
    from ..terms.verdict import read

    content = read(file)
    publish(content, {"json": json, "junit": junit, "sarif": sarif, "markdown": markdown}, github)
    return content.exit_status
