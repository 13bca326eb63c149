"""What of every batch a rank trains on, where several train together.

`batch_size` is that of one rank. With n ranks, n times as many samples in the loader's order are
the batch of a step, and each rank takes an equal part of it: together they train on the same
samples, step by step, as one process whose batch_size is n times as large. Of a last, smaller batch
the samples that cannot be divided, at most n - 1, are left out.

A data set without an order (IterableDataset), a DistributedSampler and a batch sampler of the
user's own are taken as they are: they know their rank from torch.distributed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler

from ..data.order import derived_seed, seed_all


class Share(BatchSampler):
    """A rank's part of batches that `count` ranks share."""

    def __init__(self, batches: BatchSampler, rank: int, count: int) -> None:
        """batches: those of one rank, of which `count` in a row are a step's."""
        super().__init__(batches.sampler, batches.batch_size * count, batches.drop_last)
        self.rank, self.count = rank, count

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            if size := len(batch) // self.count:
                yield batch[self.rank * size : (self.rank + 1) * size]

    def __len__(self) -> int:
        whole, rest = divmod(len(self.sampler), self.batch_size)  # type: ignore[arg-type]
        return whole + (not self.drop_last and rest >= self.count)


class OwnDraws:
    """Has a loader's workers draw other random numbers than those of other ranks."""

    def __init__(self, rank: int, theirs: Callable[[int], None] | None) -> None:
        """theirs: what the loader has called in a worker besides."""
        self.rank, self.theirs = rank, theirs

    def __call__(self, worker: int) -> None:
        seed_all(derived_seed(torch.initial_seed(), "rank", self.rank))
        if self.theirs is not None:
            self.theirs(worker)


def shared(loader: Any, rank: int, count: int) -> Any:
    """Returns the loader with a rank's share of its batches, the given one being left as it is."""
    if not isinstance(loader, DataLoader) or count == 1:
        return loader
    part = copy.copy(loader)
    if rank:
        part.worker_init_fn = OwnDraws(rank, loader.worker_init_fn)
    batches = loader.batch_sampler
    if type(batches) is BatchSampler and not isinstance(batches.sampler, DistributedSampler):
        vars(part)["batch_sampler"] = Share(batches, rank, count)  # a loader refuses to be given another
    return part
