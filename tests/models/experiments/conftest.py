"""A module and data of a user's own, which train in well under a second."""

from __future__ import annotations

from pathlib import Path

import pytest

NET = """
import os
import threading
import time

import lightning.pytorch as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(L.LightningModule):
    def __init__(self, width: int = 4, rate: float = 0.001, harm: str = ""):
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, rows):
        return self.layers(rows)

    def training_step(self, batch, batch_idx):
        if self.hparams.harm == "odd" and int(os.environ["PL_GLOBAL_SEED"]) % 2:
            return torch.tensor(float("nan"), requires_grad=True)
        if self.hparams.harm == "die once" and self.global_step == 6:
            try:
                os.close(os.open("died", os.O_CREAT | os.O_EXCL))
                os.kill(os.getpid(), 9)
            except FileExistsError:
                pass
        if self.hparams.harm == "die" and not os.path.exists("mended"):
            os.kill(os.getpid(), 9)
        if self.hparams.harm == "thread":
            threading.Thread(target=time.sleep, args=(1000,)).start()
            self.hparams.harm = ""
        if self.hparams.harm == "slow":
            time.sleep(0.5)
        rows, labels = batch
        return nn.functional.cross_entropy(self(rows), labels)

    def validation_step(self, batch, batch_idx):
        rows, labels = batch
        self.log("val_loss", nn.functional.cross_entropy(self(rows), labels))

    def test_step(self, batch, batch_idx):
        raise AssertionError("the test split was touched")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.hparams.rate)


class Rows(L.LightningDataModule):
    def split(self, count):
        rows = torch.randn(count, 4, generator=torch.Generator().manual_seed(count))
        return TensorDataset(rows, (rows.sum(1) > 0).long())

    def train_dataloader(self):
        return DataLoader(self.split(64), 8, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.split(128), 128)

    def test_dataloader(self):
        return DataLoader(self.split(32), 32)
"""
DESIGN = """
question: Is a high learning rate better?
train: net:Net
data: net:Rows
settings: {trainer.max_epochs: 1, checkpoint_every: 2, model.width: 32}
control: {low: {}}
arms: {high: {model.rate: 0.5}}
metric: loss
better: lower
smallest_effect: 0.01
seeds: 3
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with net.py and rate.yaml, which is the current one."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "rate.yaml").write_text(DESIGN)
    (tmp_path / "broken.py").write_text("raise AssertionError('as it stands')")
    # Python's own is to be taken, by the trainings too.
    (tmp_path / "statistics.py").write_text("raise AssertionError('not of the standard library')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOTLAP_RUNS", raising=False)
    return tmp_path
