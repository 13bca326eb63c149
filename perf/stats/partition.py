"""Cuts a series into segments: the optimal partition under a penalty for each border.

Exact by dynamic programming over the last border; starts of a last segment that can never be the
best again are dropped (PELT: Killick, Fearnhead and Eckley, JASA 107, 2012).
"""

from __future__ import annotations

import numpy as np

# Points that a segment has at least, so that a spike of up to 4 is no level.
SHORTEST = 5
# Blocks of ends between two prunings: a pruning that drops nothing costs as much as a block.
PRUNE_EVERY = 8


def partition(x: np.ndarray, penalty: float) -> list[int]:
    """Returns the first indices of all segments but the first, of the partition with the least sum
    of squares about the segments' means plus a penalty a border; segments have at least 5 points.
    """
    n = len(x)
    # All partitions share the sum of all squares; a segment takes (its sum)^2 / its length off it.
    sums = np.concatenate([[0.0], np.cumsum(x - np.mean(x))])
    best, last = np.full(n + 1, np.inf), np.zeros(n + 1, dtype=int)
    best[0] = -penalty
    starts = beaten = np.empty(0, dtype=int)
    too_near = np.triu(np.full((SHORTEST, SHORTEST), np.inf), 1)
    # Segments whose ends lie within 5 points of each other all begin before the first end.
    for block, first in enumerate(range(SHORTEST, n + 1, SHORTEST)):
        ends = np.arange(first, min(first + SHORTEST, n + 1))
        starts = np.append(starts, ends - SHORTEST)
        totals = sums[starts] - sums[ends, None]
        totals *= totals
        totals /= ends[:, None] - starts
        np.subtract(best[starts], totals, out=totals)
        # Of the newest starts, some are too near to the earlier ends.
        totals[:, -len(ends) :] += too_near[: len(ends), : len(ends)]
        chosen = totals.argmin(axis=1)
        best[ends] = totals[np.arange(len(ends)), chosen] + penalty
        last[ends] = starts[chosen]
        if block % PRUNE_EVERY == PRUNE_EVERY - 2:
            # The last end beats these as a start, but only a block later may a segment begin there.
            beaten = starts[totals[-1] > best[ends[-1]]]
        elif block % PRUNE_EVERY == PRUNE_EVERY - 1 and len(beaten):
            starts = np.setdiff1d(starts, beaten, assume_unique=True)
    borders, border = [], n
    while last[border] > 0:
        border = int(last[border])
        borders.append(border)
    return borders[::-1]
