"""`hotlap experiment`: the command line of experiments.

Imports what answers only once there is a question.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def experiment(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="What is asked, and how.")],
    planning: Annotated[
        bool,
        typer.Option("--plan", help="Train five pilot seeds and say which differences how many would find."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an experiment that has begun.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Trainings at once. Default: as many as the cores have room for."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of what is written. Default: that of FILE.")
    ] = None,
) -> int:
    """Compare arms with a control over seeds: better, worse, no different, or could not tell.

    Writes NAME.md, NAME.png and NAME.json beside FILE; the trainings lie in runs/experiments/NAME.
    """
    from .experiments import conduct

    return conduct.conduct(file, planning, resume, jobs, out)
