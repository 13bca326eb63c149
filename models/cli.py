"""`hotlap train NAME`: the command line of training.

Imports torch only once there is something to train.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..perf.terms import printer
from . import runs
from .catalog import names, nearest
from .runs import TrainingRun

if TYPE_CHECKING:
    from rich.table import Table


def train(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The network: a file of models/nets/.")],
    run: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="With --resume: the run. Default: the newest unfinished one."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="How many epochs. Default: the network's own.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Where all randomness comes from. Default: 0.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, or bf16 or fp16: mixed, with fp32 weights and, for fp16, a scaled loss."
            " Default: fp32."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished run, from its last whole epoch.")
    ] = False,
) -> None:
    """Train a network on data that ships with the installed packages; checkpoints go to
    runs/train/ID.
    """
    refuse_wrong_words(name, run, resume)
    finished = trained(name, epochs, seed, (run or "latest") if resume else None, precision)
    from ..perf.reports.console import console  # here, so that hotlap --help is there at once

    console().print(scores(finished))
    printer.line(f"checkpoint: {finished.checkpoint}")


def refuse_wrong_words(name: str, run: str | None, resume: bool) -> None:
    """Raises typer.BadParameter for an unknown network, and for an ID without --resume."""
    if name not in names():
        raise typer.BadParameter(
            f"no network is called {name!r}; {nearest(name, names())}", param_hint="NAME"
        )
    if run is not None and not resume:
        raise typer.BadParameter(
            f"{run!r} is the ID of a run to resume; write --resume {run}", param_hint="ID"
        )


def trained(
    name: str,
    epochs: int | None,
    seed: int | None,
    resume: str | None,
    precision: str | None,
) -> TrainingRun:
    """Trains with one line an epoch and returns the finished run.

    Ends with exit status 130 after Ctrl-C, 2 where a run cannot be resumed, 4 where training is
    refused otherwise.
    """
    try:
        from .train import train as train_network  # takes seconds, as it brings torch

        return train_network(name, epochs, seed, resume, printer.line, precision)
    except KeyboardInterrupt:
        folder = runs.newest(name, finished=False)
        if folder is None:
            printer.line("interrupted before training began")
        else:
            printer.line(f"interrupted; hotlap train {name} --resume {folder.name} goes on")
        raise typer.Exit(130) from None
    except runs.NotResumable as error:
        raise typer.BadParameter(str(error), param_hint="--resume") from error
    except ValueError as error:
        printer.note(f"hotlap: {error}")
        raise typer.Exit(4) from error


def scores(run: TrainingRun) -> Table:
    """The run's scores on the test split, one row a metric."""
    from rich.table import Table

    table = Table("metric", "test split")
    for metric, value in run.test.items():
        table.add_row(metric, f"{value:.4f}")
    return table
