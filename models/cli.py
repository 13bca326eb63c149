"""`hotlap train`: the command line of training.

Imports torch only once there is something to train.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..perf.terms import escape, printer
from ..perf.terms.reasons import Misuse
from . import runs
from .catalog import names, nearest
from .runs import TrainingRun

if TYPE_CHECKING:
    from rich.table import Table


def train(
    workload: Annotated[
        str,
        typer.Argument(
            metavar="WORKLOAD",
            help="A network of ours by its name, or package.module:Class of a LightningModule. None where"
            " --config names it.",
        ),
    ] = "",
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings, such as trainer.max_epochs=3 or model.width=64. With --resume: the run's ID."
            " Default: the newest unfinished one.",
        ),
    ] = None,
    data: Annotated[str, typer.Option(help="package.module:Class of a LightningDataModule.")] = "",
    config: Annotated[Path | None, typer.Option(help="Settings in a YAML file of LightningCLI.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="trainer.max_epochs.")] = None,
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
        bool, typer.Option("--resume", help="Go on with an unfinished run, from its last checkpoint.")
    ] = False,
) -> None:
    """Train a network, one of ours or your own; all of a run goes to runs/train/ID."""
    words = [each for each in (workload, *(words or [])) if "=" in each or each != workload]
    workload = "" if "=" in workload else workload
    run = None
    if resume:
        run, workload = resumed(workload, [word for word in words if "=" not in word])
        if more := data or config:
            raise typer.BadParameter(
                f"a run goes on as it was started; leave {more} out", param_hint="--resume"
            )
    else:
        refuse_wrong_words(workload, words, config)
    settings = [word for word in words if "=" in word]
    finished = trained(workload, epochs, seed, run, precision, data, config, settings)
    from ..perf.reports.console import console  # here, so that hotlap --help is there at once

    if finished.test or finished.validation:
        console().print(scores(finished))
    printer.line(f"checkpoint: {finished.checkpoint}")


def resumed(workload: str, words: list[str]) -> tuple[str, str]:
    """Returns the ID of the run to resume, "latest" where none is given, and its network's name,
    empty for any.
    """
    if words:
        return words[0], workload
    if workload == "latest":  # what the command line makes of --resume alone
        return "latest", ""
    if (runs.root() / workload / runs.SETTINGS).exists():
        return workload, ""
    if workload and workload not in names() and ":" not in workload:
        raise typer.BadParameter(f"there is no run {workload!r} in {runs.root()}", param_hint="--resume")
    return "latest", workload


def refuse_wrong_words(workload: str, words: list[str], config: Path | None) -> None:
    """Raises typer.BadParameter for an unknown network, and for an ID without --resume."""
    if not workload and config is None:
        raise typer.BadParameter(
            f"name one: {', '.join(names())}, or package.module:Class of your own", param_hint="WORKLOAD"
        )
    if workload and workload not in names() and ":" not in workload:
        raise typer.BadParameter(
            f"no network is called {workload!r}; {nearest(workload, names())}, or package.module:Class",
            param_hint="WORKLOAD",
        )
    for word in words:
        if "=" not in word:
            raise typer.BadParameter(
                f"{word!r} is no KEY=VALUE; if it is the ID of a run to resume, write --resume {word}",
                param_hint="KEY=VALUE",
            )


def trained(
    workload: str,
    epochs: int | None,
    seed: int | None,
    resume: str | None,
    precision: str | None,
    data: str = "",
    config: Path | None = None,
    overrides: list[str] | None = None,
) -> TrainingRun:
    """Trains with one line an epoch and returns the finished run.

    Ends with exit status 130 after Ctrl-C, 2 where a run cannot be resumed, 4 where training is
    refused or stopped; what the module raised is shown whole.
    """
    before = runs.newest(workload, finished=False)
    try:
        from .train import train as train_network  # takes seconds, as it brings torch
        from .training.guards import TrainingFailed, TrainingStopped
    except KeyboardInterrupt:
        printer.line("interrupted before training began")
        raise typer.Exit(130) from None
    try:
        return train_network(
            workload, epochs, seed, resume, printer.line, precision, data, config, overrides or []
        )
    except KeyboardInterrupt:
        printer.line(goes_on("interrupted", workload, resume, before))
        raise typer.Exit(130) from None
    except runs.NotResumable as error:
        raise typer.BadParameter(escape.log(str(error)), param_hint="--resume") from error
    except Misuse:
        raise  # the command line says it
    except ValueError as error:
        printer.note(f"hotlap: {error}")
        raise typer.Exit(4) from error
    except TrainingStopped as error:
        printer.note(goes_on(f"hotlap: {error}", workload, resume, before))
        raise typer.Exit(4) from error
    except TrainingFailed as error:
        cause = error.__cause__ or error
        printer.note("".join(traceback.format_exception(cause)).rstrip())
        printer.note(goes_on(f"hotlap: {error}", workload, resume, before))
        raise typer.Exit(4) from error


def goes_on(what: str, workload: str, resume: str | None, before: Path | None) -> str:
    """Returns what happened and how the run goes on.

    before: the newest unfinished run before this one began.
    """
    folder = runs.newest(workload, finished=False)
    if resume is not None:
        folder = before if resume == "latest" else runs.root() / resume
    elif folder == before:
        folder = None
    if folder is None:
        return f"{what} before training began"
    name = f" {workload}" if workload else ""
    return f"{what}; hotlap train{name} --resume {folder.name} goes on"


def scores(run: TrainingRun) -> Table:
    """The run's scores, one row a metric: on the test split, else on the validation split."""
    from rich.table import Table

    table = Table("metric", "test split" if run.test else "validation split")
    for metric, value in (run.test or run.validation).items():
        table.add_row(escape.log(metric), f"{value:.4f}")
    return table
