"""What of a training is on the disk while it runs: a checkpoint after each epoch and after so many
steps within one, each file whole or not at all, and a log of its figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from ...perf.terms import files
from .. import mixed, runs
from ..data.order import derived_seed, seed_all
from ..provenance import provenance
from ..runs import Settings
from ..trainable import class_name
from .guards import TrainingStopped

# The folder of a run's logs: in it one of each kind for every session.
LOGS = "logs"


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there: a kill leaves the one before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(Path(path)) as part:
                super().save_checkpoint(checkpoint, part, storage_options)
        except OSError as error:
            raise TrainingStopped(f"{path} cannot be written: {error.strerror or error}") from error


class Keeping(Checkpoint):
    """Writes last.ckpt, gives each step a seed of its own, and reports one line an epoch."""

    def __init__(self, folder: Path, settings: Settings, every: int, report: Callable[[str], None]) -> None:
        """every: optimizer steps between two checkpoints, at most."""
        self.folder, self.settings, self.every, self.report = folder, settings, every, report
        self.earlier_s, self.started = 0.0, time.monotonic()
        # Optimizer steps of the checkpoint on the disk.
        self.kept = 0

    @property
    def seconds(self) -> float:
        """Wall time of the run until now, with its earlier sessions."""
        return self.earlier_s + time.monotonic() - self.started

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.earlier_s = state_dict["seconds"]

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["hotlap"] = {
            "class": class_name(type(pl_module)),
            "seed": self.settings.seed,
            "data_hash": data_hash(trainer.datamodule),  # type: ignore[attr-defined]
            "epochs": trainer.max_epochs,
            **provenance(),
        }

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        trained_on = checkpoint.get("hotlap", {}).get("data_hash", "")
        if trained_on != data_hash(trainer.datamodule):  # type: ignore[attr-defined]
            raise runs.RunRefused(
                f"{self.folder / runs.CHECKPOINT} was trained on other data than are here; resume it where"
                " they are, or train again"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.kept = trainer.global_step

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        seed_all(derived_seed(self.settings.seed, "step", trainer.fit_loop.total_batch_idx))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes within an epoch: not where gradients are still being summed, and not where a
        validation follows, before which Lightning's own count stands between two batches.
        """
        if (batch_idx + 1) % trainer.accumulate_grad_batches or followed(trainer, batch_idx):
            return
        soon = followed(trainer, batch_idx + trainer.accumulate_grad_batches)
        if trainer.global_step - self.kept >= self.every - soon:
            self.keep(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.keep(trainer)
        scores = "".join(
            f", {name.replace('_', ' ')} {float(value):.4g}"
            for name, value in sorted(trainer.callback_metrics.items())
        )
        of = f" of {trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
        factor = mixed.scale(trainer)
        scaled = "" if factor is None else f" (loss scale {factor:g})"
        self.report(f"{self.settings.name}: epoch {trainer.current_epoch + 1}{of}{scaled}{scores}")

    def keep(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.folder / runs.CHECKPOINT)
        self.kept = trainer.global_step


def followed(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether a validation or the end of the epoch comes right after this batch."""
    every = trainer.val_check_batch
    last = trainer.num_training_batches
    return batch_idx + 1 >= last or bool(every and every != float("inf") and not (batch_idx + 1) % int(every))


def data_hash(data: Any) -> str:
    """Returns what a data module says that its data are; empty where it says nothing."""
    return str(getattr(data, "data_hash", ""))


def loggers(folder: Path) -> list[Logger]:
    """Returns a CSV file and TensorBoard's file for a new session of the run in this folder: those
    of earlier sessions stay.
    """
    session = str(1 + len(list((folder / LOGS / "csv").glob("*"))))
    place = folder / LOGS
    return [
        CSVLogger(place, name="csv", version=session),
        TensorBoardLogger(place, name="tensorboard", version=session, default_hp_metric=False),
    ]
