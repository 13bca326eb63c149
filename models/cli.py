"""`hotlap train NAME`: the command line of training.

Imports torch only once there is something to train.
"""

from __future__ import annotations

from typing import Annotated

import typer

from . import runs
from .catalog import names, nearest


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
            help=(
                "fp32, or bf16 or fp16: mixed, with fp32 weights and, for fp16, a scaled loss. Default: fp32."
            )
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished run, from its last whole epoch.")
    ] = False,
) -> None:
    """Train a network on data that ships with the installed packages; checkpoints go to
    runs/train/ID.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True, highlight=False)
    if name not in names():
        raise typer.BadParameter(
            f"no network is called {name!r}; {nearest(name, names())}", param_hint="NAME"
        )
    if run is not None and not resume:
        raise typer.BadParameter(
            f"{run!r} is the ID of a run to resume; write --resume {run}", param_hint="ID"
        )
    which = (run or "latest") if resume else None
    try:
        from .train import train as train_network

        finished = train_network(name, epochs, seed, which, console.print, precision)
    except KeyboardInterrupt:
        folder = runs.newest(name, finished=False)
        console.print(
            f"interrupted; hotlap train {name} --resume {folder.name} goes on"
            if folder
            else "interrupted before training began"
        )
        raise typer.Exit(130) from None
    except runs.NotResumable as error:
        raise typer.BadParameter(str(error), param_hint="--resume") from error
    except ValueError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(str(error))
        raise typer.Exit(4) from error
    table = Table("metric", "test split")
    for metric, value in finished.test.items():
        table.add_row(metric, f"{value:.4f}")
    console.print(table)
    console.print(f"checkpoint: {finished.checkpoint}")
