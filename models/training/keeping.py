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

from ...perf.terms import files
from .. import checkpoint, mixed, runs
from ..data.order import derived_seed, of_rank, seed_all
from ..provenance import provenance
from ..runs import Settings
from ..trainable import class_name
from .budget import DiskBudget
from .guards import TrainingStopped
from .position import epochs_trained


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there: a kill leaves the one before."""

    def __init__(self, budget: DiskBudget) -> None:
        super().__init__()
        self.budget = budget

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(Path(path)) as part:
                super().save_checkpoint(checkpoint, part, storage_options)
            self.budget.keep(Path(path))
        except OSError as error:
            raise TrainingStopped(f"{path} cannot be written: {error.strerror or error}") from error


class Keeping(Checkpoint):
    """Writes last.ckpt, gives each step a seed of its own, and reports one line an epoch."""

    def __init__(self, folder: Path, settings: Settings, every: int, report: Callable[[str], None]) -> None:
        """every: optimizer steps between two checkpoints, at most."""
        self.folder, self.settings, self.every, self.report = folder, settings, every, report
        self.earlier_s, self.started = 0.0, time.monotonic()
        # Optimizer steps of the checkpoint on the disk, and before the present batch.
        self.kept = self.before = 0
        # Whether a callback has ended the training early.
        self.ended = False
        # What was measured of an epoch that has just ended, name -> value; else empty.
        self.scored: dict[str, float] = {}
        # Whether Lightning gives no schedule a step for it.
        self.left_out = False
        self.readable = False

    @property
    def seconds(self) -> float:
        """Wall time of the run until now, with its earlier sessions."""
        return self.earlier_s + time.monotonic() - self.started

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "ended": self.ended, "scored": self.scored}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.earlier_s = state_dict["seconds"]
        self.ended = state_dict.get("ended", False)
        self.scored = state_dict.get("scored", {})

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Has a checkpoint within an epoch written after the module's own hook, whose work would
        else be missing in it.
        """
        if stage != "fit":
            return
        original: Any = pl_module.on_train_batch_end

        def then_kept(outputs: Any, batch: Any, batch_idx: int) -> None:
            original(outputs, batch, batch_idx)
            self.keep_if_due(trainer, batch_idx)

        pl_module.on_train_batch_end = then_kept  # type: ignore[method-assign]

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["hotlap"] = {
            "class": class_name(type(pl_module)),
            "seed": self.settings.seed,
            "data_hash": data_hash(trainer.datamodule),  # type: ignore[attr-defined]
            "epochs": trainer.max_epochs,
            "epochs_trained": epochs_trained(trainer),
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
        for state in checkpoint.get("callbacks", {}).values():
            if isinstance(state, dict) and "dirpath" in state:
                moved(state, self.folder)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Does what Lightning did after the checkpoint of an epoch: a training that was stopped
        early stays so.
        """
        self.kept = trainer.global_step
        trainer.should_stop = trainer.should_stop or self.ended
        self.step_plateaus(trainer)

    def step_plateaus(self, trainer: L.Trainer) -> None:
        """Gives schedules that wait for a plateau the step of the epoch that has ended. Lightning
        does, but not of an epoch that was resumed, or resumed at its end.
        """
        for each in trainer.lr_scheduler_configs:
            due = each.interval == "epoch" and not trainer.current_epoch % each.frequency
            if each.reduce_on_plateau and due and each.monitor in self.scored:
                each.scheduler.step(self.scored[each.monitor])  # type: ignore[arg-type]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.left_out:
            self.step_plateaus(trainer)
        self.scored, self.left_out = {}, False
        seed_all(derived_seed(self.settings.seed, "epoch", trainer.current_epoch))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.before = trainer.global_step
        purpose = of_rank("step", trainer.global_rank)
        seed_all(derived_seed(self.settings.seed, purpose, trainer.fit_loop.total_batch_idx))

    def keep_if_due(self, trainer: L.Trainer, batch_idx: int) -> None:
        """Writes within an epoch: not where gradients are still being summed, and not where a
        validation follows, before which Lightning's own count stands between two batches.
        """
        if trainer.global_step == self.before or followed(trainer, batch_idx):
            return
        soon = followed(trainer, batch_idx + trainer.accumulate_grad_batches)
        if trainer.global_step - self.kept >= self.every - soon:
            self.keep(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        scores = "".join(
            f", {name.replace('_', ' ')} {float(value):.4g}"
            for name, value in sorted(trainer.callback_metrics.items())
        )
        of = f" of {trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
        factor = mixed.scale(trainer)
        scaled = "" if factor is None else f" (loss scale {factor:g})"
        self.ended, self.left_out = trainer.should_stop, trainer.fit_loop.restarting
        self.scored = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.keep(trainer)
        self.report(f"{self.settings.name}: epoch {trainer.current_epoch + 1}{of}{scaled}{scores}")

    def keep(self, trainer: L.Trainer) -> None:
        """Writes the checkpoint. Raises TrainingStopped where the first cannot be read again."""
        path = self.folder / runs.CHECKPOINT
        trainer.save_checkpoint(path)
        self.kept = trainer.global_step
        if not self.readable:
            try:
                checkpoint.read(path)
            except ValueError as error:
                raise TrainingStopped(str(error)) from error
            self.readable = True


def followed(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether a validation or the end of the epoch comes right after this batch."""
    every = trainer.val_check_batch
    progress = trainer.fit_loop.epoch_loop.batch_progress
    last = batch_idx + 1 >= trainer.num_training_batches or (
        progress.is_last_batch and batch_idx == trainer.fit_loop.batch_idx
    )
    if trainer.check_val_every_n_epoch is None:
        batch_idx += trainer.fit_loop.total_batch_idx - trainer.fit_loop.batch_idx
    return last or bool(every and every != float("inf") and not (batch_idx + 1) % int(every))


def moved(state: dict[str, Any], folder: Path) -> None:
    """Has the state of a ModelCheckpoint name its files where the run's folder is now: by other
    names it would take its best for none.
    """
    before = next((part for part in Path(state["dirpath"] or "").parents if part.name == folder.name), None)
    if before is None or before == folder.resolve():
        return

    def here(path: str) -> str:
        return str(folder.resolve() / Path(path).relative_to(before)) if path else path

    for key in ("dirpath", "best_model_path", "last_model_path", "kth_best_model_path"):
        if key in state:
            state[key] = here(state[key])
    if "best_k_models" in state:
        state["best_k_models"] = {here(path): score for path, score in state["best_k_models"].items()}


def data_hash(data: Any) -> str:
    """Returns what a data module says that its data are; empty where it says nothing."""
    return str(getattr(data, "data_hash", ""))
