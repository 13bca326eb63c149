"""Windows of a time series, in splits that follow each other in time."""

from __future__ import annotations

import numpy as np
import torch

from .memory import Split

# Shares of the values that training and validation forecast; the test forecasts the rest.
TRAIN, VALIDATION = 0.6, 0.2


def bounds(length: int) -> dict[str, tuple[int, int]]:
    """Returns the first position of each split and that after its last: train, validation, test."""
    first, second = int(length * TRAIN), int(length * (TRAIN + VALIDATION))
    return {"train": (0, first), "validation": (first, second), "test": (second, length)}


def windows_of(series: np.ndarray, past: int, horizon: int) -> dict[str, Split]:
    """Cuts every window of a series (N,): inputs (W, past), and as targets the values that follow,
    (W, horizon).

    A window belongs to the split in which all its targets lie. Inputs reach back into the split
    before, as they would for who forecasts at that moment; none reaches forward, so nothing of a
    later split is seen in an earlier one.
    """
    rows = np.lib.stride_tricks.sliding_window_view(series, past + horizon)  # (N - past - horizon + 1, ...)
    splits = {}
    for name, (begin, end) in bounds(len(series)).items():
        chosen = torch.from_numpy(rows[max(0, begin - past) : end - past - horizon + 1].copy()).float()
        splits[name] = (chosen[:, :past].contiguous(), chosen[:, past:].contiguous())
    return splits
