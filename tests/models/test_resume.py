"""A training killed within its epochs ends as one that was not, to the bit (bench/resumes.py)."""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger

from bench.resumes import BATCHES, EVERY, MODULE, Trainings, arguments, killed, same, tensors
from hotlap.models import checkpoint
from hotlap.models.train import train
from hotlap.models.training.guards import TrainingFailed
from hotlap.models.training.position import SameBatches


@pytest.fixture(scope="module")
def trainings() -> Iterator[Trainings]:
    with Trainings() as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_kills_at_random_steps_change_no_tensor(workers: int, trainings: Trainings, tmp_path: Path) -> None:
    random.seed(workers)
    story = killed(trainings, tmp_path, workers, kills=4)
    assert story.different == [] and story.torn == 0
    assert 0 < story.most_lost <= EVERY


# What a module or its data may do besides, each of which has once not come back.
KINDS = """
import lightning.pytorch as L
import torch
from torch.utils.data import DataLoader, IterableDataset

from resumed_net import Data, Net, Rows


class Teacher(Net):
    def __init__(self, steps_file: str = ""):
        super().__init__(8, steps_file)
        self.register_buffer("teacher", torch.zeros(8))

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.teacher.lerp_(self.net[0].bias.detach(), 0.1)


class Plateau(Net):
    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), 1e-2)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val_loss"}}


class Manual(Net):
    def __init__(self, steps_file: str = ""):
        super().__init__(8, steps_file)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx) / 4
        self.manual_backward(loss)
        if batch_idx % 4 == 3:
            self.optimizers().step()
            self.optimizers().zero_grad()


class Cycled(Net):
    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), 1e-2)
        steps = int(self.trainer.estimated_stepping_batches)  # of a stream -1
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=max(steps, 1000))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class EpochDrawn(Net):
    def on_train_epoch_start(self):
        with torch.no_grad():
            self.net[0].bias += 0.01 * torch.randn(8)


class Transferred(Data):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        rows, labels = batch
        return rows + torch.rand_like(rows) * self.trainer.training, labels


class OwnGenerator(Data):
    def train_dataloader(self):
        generator = torch.Generator().manual_seed(1)
        return DataLoader(Rows(8 * self.batches), 8, shuffle=True, generator=generator)


class Streamed(Data):
    def train_dataloader(self):
        class Stream(IterableDataset):
            def __iter__(stream):
                rows = Rows(8 * self.batches)
                return (rows[index] for index in torch.randperm(len(rows)).tolist())

        return DataLoader(Stream(), 8)


class Two(Data):
    def train_dataloader(self):
        return {name: DataLoader(Rows(8 * count), 8, shuffle=True) for name, count in (("a", 40), ("b", 11))}


class OfTwo(Net):
    def training_step(self, batch, batch_idx):
        return sum(super(OfTwo, self).training_step(batch[name], batch_idx) for name in ("a", "b"))
"""


def interrupted(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *settings: str,
    net: str = "Net",
    data: str = "Data",
    at_the_end: bool = False,
) -> list[str]:
    """Trains whole, and again with an exception in the middle of epoch 2, or at its end, and a
    resume; returns the names of the tensors that differ.
    """
    import lightning.pytorch as L

    (folder / "resumed_net.py").write_text(MODULE)
    (folder / "resumed_kinds.py").write_text(KINDS)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(folder)
    names = {name: f"resumed_{'net' if name in ('Net', 'Data') else 'kinds'}:{name}" for name in (net, data)}
    asked = arguments(0) | {"name": names[net], "data": names[data]}
    asked["overrides"] = [*asked["overrides"], *settings]
    contents = [checkpoint.read(train(**asked, report=lambda line: None).checkpoint)]
    save = L.Trainer.save_checkpoint

    def failing(self: L.Trainer, *rest: object, **options: object) -> None:
        save(self, *rest, **options)  # type: ignore[arg-type]
        within = 0 < self.fit_loop.batch_idx < BATCHES - EVERY
        if self.current_epoch == 1 and (self.fit_loop.batch_idx == BATCHES - 1 if at_the_end else within):
            raise OSError("no more")

    with monkeypatch.context() as planted:
        planted.setattr(L.Trainer, "save_checkpoint", failing)
        with pytest.raises(TrainingFailed, match="no more"):
            train(**asked, report=lambda line: None)
    contents.append(checkpoint.read(train(resume="latest", report=lambda line: None).checkpoint))
    for name in [name for name in sys.modules if name.startswith("resumed_")]:
        del sys.modules[name]
    ours, theirs = map(tensors, contents)
    return sorted(name for name in ours if not same(ours[name], theirs.get(name)))


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("trainer.accumulate_grad_batches=4",),
        ("trainer.val_check_interval=0.25",),
        ("trainer.precision=16-mixed",),
        ("trainer.callbacks=[{class_path: EMAWeightAveraging}]",),
    ],
    ids=["plain", "accumulated", "validated within", "fp16", "averaged"],
)
def test_a_training_that_stopped_within_an_epoch_goes_on_as_if_it_had_not(
    settings: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert interrupted(tmp_path, monkeypatch, *settings) == []


@pytest.mark.parametrize("at_the_end", [False, True], ids=["within", "at the end"])
@pytest.mark.parametrize(
    ("net", "data"),
    [
        ("Teacher", "Data"),
        ("Net", "Transferred"),
        ("Plateau", "Data"),
        ("Manual", "Data"),
        ("Cycled", "Data"),
        ("Cycled", "Streamed"),
        ("EpochDrawn", "Data"),
        ("Net", "OwnGenerator"),
        ("Net", "Streamed"),
        ("OfTwo", "Two"),
    ],
)
def test_what_modules_and_data_do_besides_comes_back(
    net: str, data: str, at_the_end: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert interrupted(tmp_path, monkeypatch, net=net, data=data, at_the_end=at_the_end) == []


def test_what_was_logged_up_to_the_checkpoint_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first session ends within epoch 2, as by a kill: without a last word of the logger."""
    monkeypatch.setattr(CSVLogger, "finalize", lambda self, status: None)
    assert interrupted(tmp_path, monkeypatch) == []
    _, broken = sorted((tmp_path / "runs" / "train").iterdir())
    files = [broken / "logs" / "csv" / session / "metrics.csv" for session in ("1", "2")]
    sessions = [csv.DictReader(file.read_text().splitlines()) for file in files]
    validated = [[row["epoch"] for row in session if row["val_loss"]] for session in sessions]
    assert validated == [["0"], ["1", "2", "3"]]  # the last is that of the finished training


def test_a_training_that_was_stopped_early_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of epoch 2 is its end; what is left to do is to validate."""
    stopping = "{class_path: EarlyStopping, init_args: {monitor: val_loss, patience: 1, min_delta: 10}}"
    settings = ("trainer.max_epochs=9", f"trainer.callbacks=[{stopping}]")
    assert interrupted(tmp_path, monkeypatch, *settings, at_the_end=True) == []


def test_a_loader_that_begins_again_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The defect planted: what Lightning does by itself."""
    monkeypatch.setattr(SameBatches, "load_state_dict", lambda self, state: None)
    assert any(name.startswith("state_dict") for name in interrupted(tmp_path, monkeypatch))
