"""`hotlap gate`: results before and after a change against a policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def gate(
    base: Annotated[
        Path,
        typer.Argument(
            help="Results before the change: a file of hotlap, pytest-benchmark or another tool, or a folder"
            " of several runs."
        ),
    ],
    head: Annotated[Path, typer.Argument(help="Results after it.")],
    more_base: Annotated[
        list[Path] | None,
        typer.Option("--base", help="A further run of BASE; may be given several times."),
    ] = None,
    more_head: Annotated[
        list[Path] | None,
        typer.Option("--head", help="A further run of HEAD; may be given several times."),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="Tolerances, error rate, limits: a TOML file. Default: gate.toml here, if there is one."
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the verdict; - is stdout.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML.")] = None,
    sarif: Annotated[Path | None, typer.Option(help="Write SARIF 2.1.0.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown for a pull request.")] = None,
    github: Annotated[
        bool,
        typer.Option(
            "--github", help="Print GitHub's annotations and append the Markdown to its step summary."
        ),
    ] = False,
    with_: Annotated[
        list[Path] | None,
        typer.Option(
            "--with", help="A verdict of another command (--json of kernels, review) that joins this one."
        ),
    ] = None,
) -> int:
    """Judge HEAD against BASE.

    Exit: 0 pass, 1 regression, 2 usage, 3 could not tell, 4 unreadable or not comparable.
    """
    from ..gate.judge import judge
    from ..gate.policy import chosen
    from ..readers import runs
    from ..reports.output import publish
    from ..terms import verdict

    rules = chosen(policy)
    others = [verdict.read(path) for path in with_ or []]
    paths = [base, *(more_base or [])], [head, *(more_head or [])]
    mine, theirs = runs.side(paths[0]), runs.side(paths[1])
    runs.refuse_shared(mine, theirs, paths)
    joined = verdict.join(judge(mine, theirs, rules), others)
    publish(joined, {"json": json, "junit": junit, "sarif": sarif, "markdown": markdown}, github)
    return joined.exit_status
