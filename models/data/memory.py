"""The LightningDataModule all data modules share: splits that are tensors in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import ClassVar

import lightning.pytorch as L
import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from .order import EpochOrder

Split = tuple[Tensor, Tensor]  # inputs (N, ...), targets (N, ...)


def hash_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 over name, type, shape and bytes of each array, in the order of the names."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class InMemoryData(L.LightningDataModule):
    """Subclasses say how to `read` the raw arrays and how to `prepare` them into train, validation
    and test.

    samples_per_epoch: how many training samples make an epoch; None means all of them.
    data_hash: sha256 of the raw arrays, known after `setup`.
    """

    samples_per_epoch: ClassVar[int | None] = None

    def __init__(self, batch_size: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.batch_size, self.seed = batch_size, seed
        self.splits: dict[str, Split] = {}
        self.data_hash = ""

    def read(self) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def prepare(self, raw: dict[str, np.ndarray]) -> dict[str, Split]:
        raise NotImplementedError

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
