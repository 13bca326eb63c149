"""The next byte by the last one alone: shares of the pairs of bytes in the training text."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.memory import Split

NETWORKS = ("gpt",)
BYTES = 256
# Added to each count, so that no pair is impossible (Jeffreys' prior).
PSEUDOCOUNT = 0.5


def outputs(train: Split, inputs: Tensor) -> Tensor:
    """Returns the log probability of each next byte, (N, T, 256), of tokens (N, T)."""
    pairs = (train[0] * BYTES + train[1]).flatten()
    counts = torch.bincount(pairs, minlength=BYTES**2).reshape(BYTES, BYTES) + PSEUDOCOUNT
    return (counts / counts.sum(dim=1, keepdim=True)).log()[inputs]
