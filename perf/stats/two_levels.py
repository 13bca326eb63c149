"""Tells a series that alternates at random between two levels from one whose level moved.

Code that is fast in one process and slow in the next (memory layout, which core, which plan a
compiler chose) makes such series. None of their jumps is news.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from .chance import ROUNDING, chances
from .partition import SHORTEST

# Standard deviations between two levels, of the one that spreads more: fewer than 1 in 100 points
# then stands nearer to the wrong one.
SEPARATED = 5.0
# Points for which a level must be held before it counts although the series went back.
LASTING = 10
# Changes of side that make an alternation: two lasting changes, there and back, are 2.
FEWEST_TURNS = 4
# Chance above which the shares of the two levels are the same throughout.
SAME = 0.01


class TwoLevels(msgspec.Struct, frozen=True):
    """Two levels, alternating.

    low, high: medians. share: of the points at `high`. turns: how often it went from one to the
    other.
    """

    low: float
    high: float
    share: float
    turns: int


def two_levels(values: Sequence[float]) -> TwoLevels | None:
    """Returns the two levels between which a series alternates: clearly apart, most stays at either
    shorter than 10 points, and neither more frequent early or late than chance makes it. None where
    it does not.

    values: positive, oldest first.
    """
    x = np.log(np.asarray(values, dtype=float))
    if len(x) < 2 * SHORTEST:
        return None
    between = _parted(np.sort(x))
    if between is None:
        return None
    above = x > between
    turns = np.flatnonzero(above[1:] != above[:-1]) + 1
    if len(turns) < FEWEST_TURNS or float(np.median(np.diff(turns, prepend=0, append=len(x)))) >= LASTING:
        return None
    if _moved(above.astype(float)):
        return None
    low, high = (math.exp(float(np.median(x[side]))) for side in (~above, above))
    return TwoLevels(low, high, float(above.mean()), len(turns))


def _parted(ordered: np.ndarray) -> float | None:
    """Returns the middle between two groups of values with the least sum of squares about their
    means; None where they are not clearly apart or one has fewer than 5.
    """
    n = len(ordered)
    sums = np.cumsum(ordered - ordered.mean())
    sizes = np.arange(SHORTEST, n - SHORTEST + 1)
    size = int(sizes[np.argmax(sums[sizes - 1] ** 2 / (sizes * (n - sizes)))])
    lower, upper = ordered[:size], ordered[size:]
    spread = max(float(lower.std()), float(upper.std()), math.sqrt(ROUNDING))
    if float(upper.mean() - lower.mean()) < SEPARATED * spread:
        return None
    return float(ordered[size - 1] + ordered[size]) / 2


def _moved(side: np.ndarray) -> bool:
    """Returns whether the share of the upper level is another after some point than before it."""
    n = len(side)
    sizes = np.arange(SHORTEST, n - SHORTEST + 1)
    sums = np.cumsum(side - side.mean())
    border = int(sizes[np.argmax(sums[sizes - 1] ** 2 / (sizes * (n - sizes)))])
    return chances(side, [border])[0] <= SAME
