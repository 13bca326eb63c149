"""A module and data so small that a training takes a fraction of a second."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hotlap.models.train import train

TINY = """
import time

import lightning.pytorch as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

# What training steps saw: losses, the type of the outputs, tensors kept for the backward pass.
losses, types, kept = [], [], []


class Bare(L.LightningModule):
    def __init__(self, width: int = 8):
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(
            nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()),
            nn.Linear(width, 2),
        )
        self.example_input_array = torch.zeros(1, 4)

    def forward(self, rows):
        return self.layers(rows)

    def training_step(self, batch, batch_idx):
        rows, labels = batch
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(self.keep, lambda tensor: tensor):
            logits = self(rows)
        types.append(logits.dtype)
        loss = nn.functional.cross_entropy(logits, labels)
        losses.append(loss.detach())
        self.log("loss", loss)
        return loss

    def keep(self, tensor):
        kept[-1] += 1
        return tensor

    def validation_step(self, batch, batch_idx):
        rows, labels = batch
        self.log("val_loss", nn.functional.cross_entropy(self(rows), labels))


class Net(Bare):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Slow(Net):
    def training_step(self, batch, batch_idx):
        time.sleep(0.2)
        return super().training_step(batch, batch_idx)


class Other(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Rows(L.LightningDataModule):
    def split(self, count):
        rows = torch.randn(count, 4, generator=torch.Generator().manual_seed(count))
        return TensorDataset(rows, (rows.sum(1) > 0).long())

    def train_dataloader(self):
        return DataLoader(self.split(64), 8, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.split(32), 32)
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """A function of settings that trains, in tmp_path, and returns run, lines and module."""
    (tmp_path / "tiny_net.py").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def trained(*settings: str, net: str = "Net", **more: Any) -> tuple[Any, list[str], Any]:
        sys.modules.pop("tiny_net", None)
        lines: list[str] = []
        usual = [
            "trainer.max_epochs=2",
            "trainer.accelerator=cpu",
            "threads=1",
            "trainer.log_every_n_steps=1",
        ]
        if "resume" not in more:
            more |= {"name": f"tiny_net:{net}", "data": "tiny_net:Rows"}
        else:
            usual = []
        run = train(overrides=[*usual, *settings], report=lines.append, **more)
        return run, lines, sys.modules["tiny_net"]

    yield trained
    sys.modules.pop("tiny_net", None)
