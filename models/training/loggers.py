"""Where a training's figures go: files in the run's folder, and what `trainer.logger` names.

A logger that fails, such as one of a server that is down, costs no training: it is left out for a
while and then tried again, or where it cannot even begin, for the session. The figures are in the
CSV file in any case.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from .. import runs

# What Lightning calls of a logger in a training.
CALLED = ("log_metrics", "log_hyperparams", "log_graph", "save", "finalize", "after_save_checkpoint")
# How long a logger that has failed is left out, s.
PAUSE_S = 60.0
# MLflow's own settings retry a request for minutes while the training waits.
MLFLOW = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}


class Forgiven:
    """A logger's methods, whose exceptions are reported, once, and go no further."""

    def __init__(self, logger: Logger, report: Callable[[str], None]) -> None:
        self.logger, self.report = logger, report
        self.reported = False
        # When it may be called again, on time.monotonic's clock.
        self.after_s = 0.0
        for name in CALLED:
            setattr(logger, name, self.tried(getattr(logger, name)))

    def begins(self) -> bool:
        """Whether it has made its experiment, which Lightning asks for before all else."""
        try:
            _ = getattr(self.logger, "experiment", None)
        except Exception as error:
            self.tell("is left out of this session", error)
            return False
        return True

    def tried(self, method: Callable[..., Any]) -> Callable[..., None]:
        def call(*inputs: Any, **named: Any) -> None:
            if time.monotonic() < self.after_s:
                return
            try:
                method(*inputs, **named)
            except Exception as error:
                self.after_s = time.monotonic() + PAUSE_S
                self.tell(f"is left out for {PAUSE_S:.0f} s at a time", error)

        return call

    def tell(self, what: str, error: Exception) -> None:
        if self.reported:
            return
        self.reported = True
        why = str(error).strip().partition("\n")[0][:200]
        self.report(
            f"{type(self.logger).__name__} fails and {what}; training goes on, its figures are in"
            f" {runs.LOGS}/csv:"
            f" {type(error).__name__}: {why}"
        )


def own(folder: Path) -> list[Logger]:
    """Returns a CSV file and TensorBoard's file for a new session of the run in this folder: those
    of earlier sessions stay.
    """
    session = str(1 + len(list((folder / runs.LOGS / "csv").glob("*"))))
    place = folder / runs.LOGS
    return [
        CSVLogger(place, name="csv", version=session),
        TensorBoardLogger(place, name="tensorboard", version=session, default_hp_metric=False),
    ]


def forgive(trainer: L.Trainer, folder: Path, report: Callable[[str], None]) -> None:
    """Has the loggers that the settings name cost no training, and a CSV file kept beside them."""
    if not trainer.loggers:
        return
    for name, value in MLFLOW.items():
        os.environ.setdefault(name, value)
    beginning = [logger for logger in trainer.loggers if Forgiven(logger, report).begins()]
    csv, _ = own(folder)
    trainer.loggers = [*beginning, csv]
