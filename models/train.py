"""Trains a network, our own or the user's, by one path and repeatably.

Lightning's Trainer does the work; everything random is derived from (seed, epoch or step), so that
a run can be resumed after a kill, within an epoch too. Two runs with the same configuration on the
same machine and versions give the same weights to the bit, and so does one that was killed and
resumed. The test split is used once, when training has finished.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.model_helpers import is_overridden

from ..perf.terms import printer
from ..perf.terms.reasons import Misuse
from . import checkpoint, class_report, mixed, runs
from .provenance import provenance
from .quiet import undisturbed
from .runs import Settings, TrainingRun
from .trainable import Trainable, class_name
from .training import configuration, loggers
from .training.budget import DiskBudget
from .training.configuration import Configuration
from .training.guards import Guard, TrainingFailed, TrainingStopped
from .training.keeping import Keeping, WholeFiles, data_hash
from .training.position import Position
from .training.ranks import TrainingRank, together


def train(
    name: str = "",
    epochs: int | None = None,
    seed: int | None = None,
    resume: str | None = None,
    report: Callable[[str], None] = printer.line,
    precision: str | None = None,
    data: str = "",
    config: Path | None = None,
    overrides: Iterable[str] = (),
    test: bool = True,
) -> TrainingRun:
    """Trains a network and returns the finished run.

    name: one of nets/, `package.module:Class` of a LightningModule, or empty where config, a YAML
    file of LightningCLI, names it. data: `package.module:Class` of a LightningDataModule.
    overrides: key.sub=value. resume: the ID of an unfinished run, or "latest"; all else is then the
    run's own. report gets one line an epoch, after its checkpoint is on the disk.

    Raises Misuse for what cannot be met, ValueError for a checkpoint that cannot be read, its
    subclass NotResumable for a run that cannot go on, TrainingStopped for a training that went
    wrong, TrainingFailed where the module or the data does.
    """
    with undisturbed():
        if resume is not None:
            folder = runs.to_resume(name, resume, epochs, seed, precision)
            settings = Settings.read(folder)
            asked = [*resumed(folder, settings), *adjusted(overrides)]
            with theirs():
                chosen = Configuration(asked)
            with runs.held(folder):
                return fit(chosen, folder, settings, report, test)
        with theirs():
            chosen = Configuration(
                configuration.words(name, data, config, [*overrides, *shorthands(epochs, seed, precision)])
            )
        settings = Settings(name or chosen.class_path("model"), chosen.seed, chosen.epochs, chosen.precision)
        folder = runs.create(settings)
        try:
            with runs.held(folder):
                runs.describe(folder, chosen.text(), chosen.threads)
                return fit(chosen, folder, settings, report, test)
        except (Misuse, ValueError):
            if not (folder / runs.CHECKPOINT).exists():
                shutil.rmtree(folder)  # there is nothing to go on with
            raise


@contextmanager
def theirs() -> Iterator[None]:
    """Tells what the user's module or data raise from what is ours: as TrainingFailed, which has it
    as its cause.
    """
    try:
        yield
    except SystemExit as stopped:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from stopped
    except (Misuse, TrainingStopped, TrainingFailed, runs.RunRefused):
        raise
    except MisconfigurationException as error:
        raise Misuse(" ".join(str(error).split())) from error
    except Exception as error:
        raise TrainingFailed(f"{type(error).__name__}: {error}") from error


def shorthands(epochs: int | None, seed: int | None, precision: str | None) -> list[str]:
    """Returns the options of the command line as settings. Raises Misuse."""
    if epochs is not None and epochs < 1:
        raise Misuse(f"epochs must be at least 1, not {epochs}")
    if precision is not None:
        mixed.plugin(precision, "cpu")  # refuses an unknown one
    return [
        *([f"trainer.max_epochs={epochs}"] if epochs is not None else []),
        *([f"seed_everything={seed}"] if seed is not None else []),
        *([f"trainer.precision={mixed.NAMES[precision]}"] if precision is not None else []),
    ]


def adjusted(overrides: Iterable[str]) -> list[str]:
    """Returns settings that a run may be resumed with, since they change no step: `spike`,
    `checkpoint_every` and `disk_budget`. Raises Misuse for others.
    """
    for override in overrides:
        if override.partition("=")[0] not in ("spike", "checkpoint_every", "disk_budget"):
            raise Misuse(f"a run goes on as it was started; leave {override} out")
    return configuration.words("", overrides=overrides)


def resumed(folder: Path, settings: Settings) -> list[str]:
    """Returns the words of a run's configuration; of one that was made before runs kept theirs,
    what its settings say.
    """
    path = folder / runs.CONFIGURATION
    if path.exists():
        return ["--config", str(path)]
    return configuration.words(
        settings.name, overrides=shorthands(settings.epochs, settings.seed, settings.precision)
    )


def fit(
    chosen: Configuration,
    folder: Path,
    settings: Settings,
    report: Callable[[str], None],
    test: bool,
    rank: TrainingRank | None = None,
    ready: Callable[[], None] = lambda: None,
) -> TrainingRun:
    """Trains, validates and tests if asked to, and writes the run's metrics.

    rank: which of several processes this is; None: the first or only one, which starts the others.
    ready: is called before the first of what needs them all.
    """
    rank = rank or TrainingRank()
    keeping = Keeping(folder, settings, chosen.config.checkpoint_every, report)
    budget = DiskBudget(folder, chosen.disk_budget, report)
    named = chosen.config.trainer.logger is not None
    logger = {} if named else {"logger": loggers.own(folder)}
    with theirs():
        trainer, module, data = chosen.build(
            callbacks=[Guard(folder, chosen.config.spike), Position(settings.seed), keeping],
            plugins=[WholeFiles(budget), rank],
            use_distributed_sampler=False,
            default_root_dir=folder,
            enable_checkpointing=True,
            enable_model_summary=False,
            **logger,
        )
    if named:
        loggers.forgive(trainer, folder, report)
    budget.callbacks = trainer.checkpoint_callbacks
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(folder.resolve() / runs.CHECKPOINTS)
    if data is None and not is_overridden("train_dataloader", module):
        loader = f"{class_name(type(module))}.train_dataloader"
        raise Misuse(f"no data: --data package.module:Class, or {loader}")
    for part in filter(None, (module, data)):
        checkpoint.check_plain(part)
    last = resumable_checkpoint(type(module), folder)
    if last is None and chosen.config.warm_start is not None:
        checkpoint.warm_start(module, Path(chosen.config.warm_start))
    ready()
    with theirs(), together(trainer, rank, folder, chosen.words, test):
        trainer.fit(chosen.compiled(module), datamodule=data, ckpt_path=last, weights_only=True)
        if not trainer.global_step:
            raise TrainingStopped("the training split is empty: not one step was taken")
        validation = scores(trainer.validate, "validation_step", "val_dataloader", module, data)
        tested = scores(trainer.test, "test_step", "test_dataloader", module, data) if test else {}
    run = TrainingRun(folder, settings, validation, tested, keeping.seconds, trainer.global_step)
    if rank.number == 0:
        for split, judged in module.reports.items() if isinstance(module, Trainable) else ():
            class_report.write(folder, split, judged)
        write_metrics(run, data)
    return run


def resumable_checkpoint(net: type[L.LightningModule], folder: Path) -> Path | None:
    """The path of the run's checkpoint; None where it has none yet.

    Raises ValueError where it is damaged or of another network.
    """
    path = folder / runs.CHECKPOINT
    if not path.exists():
        return None
    checkpoint.check_class(net, path, checkpoint.read(path))
    return path


def scores(
    run: Callable[..., Any], step: str, loader: str, module: L.LightningModule, data: Any
) -> dict[str, float]:
    """Returns what the module logs of a split, without the split's name; empty where the module has
    no such step, or neither it nor the data such a loader.

    run: the trainer's validate or test.
    """
    source = data if data is not None and is_overridden(loader, data) else module
    if not is_overridden(step, module) or not is_overridden(loader, source):
        return {}
    return {
        runs.without_split(name): float(value)
        for each in run(module, datamodule=data, verbose=False)
        for name, value in each.items()
    }


def write_metrics(run: TrainingRun, data: Any) -> None:
    """Writes metrics.json, last and at once: that it exists says that the training is finished."""
    content = {
        "schema": runs.SCHEMA,
        "id": run.id,
        "name": run.settings.name,
        "seed": run.settings.seed,
        "epochs": run.settings.epochs,
        "precision": run.settings.precision,
        "validation": finite(run.validation),
        "test": finite(run.test),
        "steps": run.steps,
        "seconds": run.seconds,
        "data_hash": data_hash(data),
        **provenance(),
    }
    runs.write_json(run.folder / runs.METRICS, content)


def finite(scores: dict[str, float]) -> dict[str, float | None]:
    """Returns the scores as JSON can hold them: None for one that is no number."""
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}
