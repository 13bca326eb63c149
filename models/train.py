"""Trains a network, by one path and repeatably.

Lightning's Trainer does the work; everything random is derived from (seed, epoch or step), so that
a run can be resumed after a kill. Two runs with the same seed on the same machine and versions give
the same weights and metrics to the bit, and so does one that was killed after any epoch and
resumed. The test split is used once, when training has finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from ..perf.terms import files, printer
from . import checkpoint, mixed, runs
from .catalog import network
from .data.memory import InMemoryData
from .data.order import derived_seed
from .provenance import provenance
from .quiet import undisturbed
from .runs import Settings, TrainingRun
from .trainable import Trainable


class EveryEpoch(Checkpoint):
    """Writes a checkpoint after each epoch, whole or not at all, and reports one line about it."""

    def __init__(self, folder: Path, settings: Settings, report: Callable[[str], None]) -> None:
        self.folder, self.settings, self.report = folder, settings, report
        self.earlier_s, self.started = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time of the run until now, with its earlier sessions."""
        return self.earlier_s + time.monotonic() - self.started

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.earlier_s = state_dict["seconds"]

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        torch.manual_seed(derived_seed(self.settings.seed, "step", trainer.global_step))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        with files.replacing(self.folder / runs.CHECKPOINT) as part:
            trainer.save_checkpoint(part)
        values = trainer.callback_metrics
        scores = ", ".join(
            f"validation {name.removeprefix('validation_').replace('_', ' ')} {float(value):.4g}"
            for name, value in sorted(values.items())
            if name.startswith("validation_")
        )
        epoch = f"epoch {trainer.current_epoch + 1} of {self.settings.epochs}"
        factor = mixed.scale(trainer)
        scaled = "" if factor is None else f" (loss scale {factor:g})"
        self.report(f"{self.settings.name}: {epoch}, loss {float(values['loss']):.4g}{scaled}, {scores}")


def train(
    name: str,
    epochs: int | None = None,
    seed: int | None = None,
    resume: str | None = None,
    report: Callable[[str], None] = printer.line,
    precision: str | None = None,
) -> TrainingRun:
    """Trains nets/NAME.py and returns the finished run.

    epochs, seed and precision default to the network's recipe, 0 and fp32, or to those of the run
    that is resumed; resume is the ID of an unfinished run, or "latest". report gets one line per
    epoch, after its checkpoint is on the disk. Raises ValueError for an unknown name, a damaged
    checkpoint or other data, and its subclass NotResumable for a run that cannot go on.
    """
    net = network(name)
    if epochs is not None and epochs < 1:
        raise ValueError(f"epochs must be at least 1, not {epochs}")
    if resume is None:
        mixed.plugin(precision or "fp32", "cpu")  # refuses an unknown precision before there is a folder
        folder = runs.create(Settings(name, seed or 0, epochs or net.recipe.epochs, precision or "fp32"))
    else:
        folder = runs.to_resume(name, resume, epochs, seed, precision)
    settings = Settings.read(folder)
    data = net.data(net.recipe.batch_size, settings.seed)
    data.setup()
    with undisturbed():
        return _fit(net, data, folder, settings, report)


def _fit(
    net: type[Trainable], data: InMemoryData, folder: Path, settings: Settings, report: Callable[[str], None]
) -> TrainingRun:
    """Trains, validates and tests, and writes the run's metrics."""
    torch.manual_seed(settings.seed)
    module = net().to(memory_format=net.layout)
    every_epoch = EveryEpoch(folder, settings, report)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trainer = L.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        plugins=[mixed.plugin(settings.precision, device)],
        devices=1,
        max_epochs=settings.epochs,
        callbacks=[every_epoch],
        default_root_dir=folder,
        deterministic=True,
        gradient_clip_val=net.recipe.clip,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    last = resumable_checkpoint(net, data, folder)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
    except SystemExit as stopped:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from stopped
    validation = _scores(trainer.validate(module, datamodule=data, verbose=False))
    test = _scores(trainer.test(module, datamodule=data, verbose=False))
    run = TrainingRun(folder, settings, validation, test, every_epoch.seconds)
    write_metrics(run, data)
    return run


def resumable_checkpoint(net: type[Trainable], data: InMemoryData, folder: Path) -> Path | None:
    """The path of the run's checkpoint; None where it has none yet.

    Raises ValueError where it is damaged, of another network or of other data.
    """
    path = folder / runs.CHECKPOINT
    if not path.exists():
        return None
    content = checkpoint.read(path)
    checkpoint.check_class(net, path, content)
    if content["hotlap"]["data_hash"] != data.data_hash:
        raise ValueError(
            f"{path} was trained on other data than this Python installation has; resume it there or train"
            " again"
        )
    return path


def write_metrics(run: TrainingRun, data: InMemoryData) -> None:
    """Writes metrics.json, last and at once: that it exists says that the training is finished."""
    content = {
        "schema": runs.SCHEMA,
        "id": run.id,
        "name": run.settings.name,
        "seed": run.settings.seed,
        "epochs": run.settings.epochs,
        "precision": run.settings.precision,
        "validation": run.validation,
        "test": run.test,
        "seconds": run.seconds,
        "data_hash": data.data_hash,
        **provenance(),
    }
    runs.write_json(run.folder / runs.METRICS, content)


def _scores(results: Any) -> dict[str, float]:
    """Returns {"accuracy": 0.9} of Lightning's [{"test_accuracy": 0.9}]."""
    return {name.partition("_")[2]: float(value) for name, value in results[0].items()}
