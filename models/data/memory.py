"""The LightningDataModule that all data modules share: splits are tensors in memory."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import lightning.pytorch as L
import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from .order import EpochOrder

# Inputs (N, ...) and targets (N, ...).
Split = tuple[Tensor, Tensor]


def hash_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """The sha256 over name, type, shape and bytes of each array, in the order of the names."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class InMemoryData(L.LightningDataModule, ABC):
    """A data module whose subclasses `read` raw arrays and `prepare` them into the three splits."""

    # How many training samples make an epoch; None: all of them.
    samples_per_epoch: ClassVar[int | None] = None

    def __init__(self, batch_size: int = 64, seed: int | None = None) -> None:
        """seed: of the order of the samples; a training gives its own. None: 0."""
        super().__init__()
        self.batch_size = batch_size
        self.seed = seed or 0
        # Empty until `setup`.
        self.splits: dict[str, Split] = {}
        # The sha256 of the raw arrays; empty until `setup`.
        self.data_hash = ""

    @abstractmethod
    def read(self) -> dict[str, np.ndarray]:
        """The raw arrays, by name."""

    @abstractmethod
    def prepare(self, raw: dict[str, np.ndarray]) -> dict[str, Split]:
        """Makes the splits train, validation and test of the raw arrays."""

    def setup(self, stage: str | None = None) -> None:
        if not self.splits:
            raw = self.read()
            self.data_hash = hash_arrays(raw)
            self.splits = self.prepare(raw)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        dataset = TensorDataset(*self.splits["train"])
        order = EpochOrder(len(dataset), self.samples_per_epoch or len(dataset), self.seed)
        return DataLoader(dataset, batch_size=self.batch_size, sampler=order)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(TensorDataset(*self.splits["validation"]), batch_size=self.batch_size)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(TensorDataset(*self.splits["test"]), batch_size=self.batch_size)
