"""Where a training stands in its data: a loader's epoch goes on where it stopped, whoever draws."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from hotlap.models.training.guards import TrainingStopped
from hotlap.models.training.position import SameBatches


class Drawn(Dataset):
    """Samples that torch, numpy and Python change at random."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index, torch.rand(()), np.random.rand(), random.random()], dtype=torch.float64)


class Broken(Drawn):
    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 5:
            raise OSError("cannot identify image file 'five.png'")
        return super().__getitem__(index)


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.rand(2)


def loader(workers: int = 0, epoch: int = 3) -> SameBatches:
    batches = DataLoader(Drawn(), 4, shuffle=True, num_workers=workers)
    return SameBatches(batches, seed=1, epoch=lambda: epoch)


def disturb() -> None:
    torch.rand(7), np.random.rand(7), random.random()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_with_the_batches_that_are_left(workers: int) -> None:
    whole = [*loader(workers)]
    disturb()
    late = loader(workers)
    late.load_state_dict({"batches": 4})
    assert len(late) == 6
    left = [*late]
    assert len(left) == 2 and all(torch.equal(*pair) for pair in zip(left, whole[4:], strict=True))
    # The state is of one epoch; the next one is whole, and another epoch is in another order.
    assert len([*late]) == 6
    other = [*loader(workers, epoch=4)]
    assert not torch.equal(torch.cat(other)[:, 0], torch.cat(whole)[:, 0])
    assert not any(torch.equal(*pair) for pair in zip(other, whole, strict=True))


def test_a_plain_loader_would_not_be_the_same() -> None:
    """The defect planted: what the wrapper is there for."""
    torch.manual_seed(1)
    first = [*DataLoader(Drawn(), 4, shuffle=True)]
    disturb()
    second = [*DataLoader(Drawn(), 4, shuffle=True)]
    assert not any(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_what_is_drawn_with_a_batch_does_not_depend_on_what_was_drawn_before() -> None:
    drawn = []
    for _ in range(2):
        disturb()
        batches = iter(loader())
        next(batches)
        disturb()
        next(batches)
        drawn.append((torch.rand(()).item(), np.random.rand(), random.random()))
    assert drawn[0] == drawn[1]


def test_what_cannot_be_read_is_named() -> None:
    for workers in (0, 2):
        broken = SameBatches(DataLoader(Broken(), 4, num_workers=workers), 1, lambda: 0)
        with pytest.raises(
            TrainingStopped, match=r"batch 1 of epoch 1 cannot be read: OSError: .*'five\.png'"
        ):
            list(broken)


def test_an_endless_loader_has_no_length_and_may_be_left() -> None:
    endless = SameBatches(DataLoader(Endless(), 4), 1, lambda: 0)
    with pytest.raises(TypeError):
        len(endless)
    first = next(iter(endless))
    assert torch.equal(first, next(iter(endless)))
