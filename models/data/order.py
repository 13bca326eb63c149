"""Randomness without state.

Every draw is a function of the training seed and of how far training has come. A training that was
killed and resumed therefore sees the same samples in the same order as one that was not.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler

# What numpy takes as a seed is below it.
NUMPY_SEEDS = 2**32


def derived_seed(seed: int, purpose: str, count: int) -> int:
    """A seed in [0, 2**63) for a purpose ("order", "augment" ...) at a count of epochs or steps."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{count}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def of_rank(purpose: str, rank: int) -> str:
    """The purpose, told apart for each of the processes that train together."""
    return f"{purpose} of rank {rank}" if rank else purpose


def seed_all(seed: int) -> None:
    """Seeds torch, numpy and Python with a seed that `derived_seed` makes."""
    torch.manual_seed(seed)
    np.random.seed(seed % NUMPY_SEEDS)
    random.seed(seed)


def generator(seed: int, purpose: str, count: int) -> torch.Generator:
    """A generator on the CPU with the seed that `derived_seed` makes of the arguments."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, count))


class EpochOrder(Sampler[int]):
    """Draws `drawn` of `size` samples without replacement.

    Which ones, and in which order, depends on (seed, epoch) only. Lightning calls `set_epoch` of
    any sampler that has it before each epoch.
    """

    def __init__(self, size: int, drawn: int, seed: int) -> None:
        self.size, self.drawn, self.seed = size, min(drawn, size), seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(self.size, generator=generator(self.seed, "order", self.epoch))
        return iter(order[: self.drawn].tolist())

    def __len__(self) -> int:
        return self.drawn
