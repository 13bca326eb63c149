"""The chance of a step in a series without one, whose noise may be correlated.

A step must explain what correlation cannot. With and without it, the series is described as levels
plus AR(1) noise, each with the correlation that fits it best; the statistic is the ratio of the two
sums of squared innovations. So a series that wanders needs no step, and the noise is not estimated
beforehand, which a step not yet known would spoil.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from .partition import SHORTEST

# Cap of the lag-1 correlation phi: at 1 the first value alone would fix the level.
MOST_CORRELATED = 0.95
# Variance of the values' rounding, below which no noise is taken to be (log scale).
ROUNDING = 1e-12
# Points' worth of the common variance in that of a segment (Smyth, Stat. Appl. in Genetics and
# Molecular Biology 3, 2004): as many as the shortest segment has of its own.
BORROWED = 5
# No smaller chance is stated: noise is normal in theory only.
LEAST_CHANCE = 1e-9


def segments(x: np.ndarray, borders: Sequence[int]) -> list[tuple[int, int]]:
    """Returns start and end (exclusive) of each segment."""
    return list(pairwise([0, *borders, len(x)]))


def residuals(x: np.ndarray, borders: Sequence[int]) -> np.ndarray:
    """Returns for each point how far it lies off the mean of its segment."""
    off = x.copy()
    for start, end in segments(x, borders):
        off[start:end] -= off[start:end].mean()
    return off


def innovations(off: np.ndarray) -> float:
    """Returns the least sum of squared innovations of AR(1) noise, over its correlation phi.

    Of a stationary process: (1 - phi^2) e_1^2 + sum (e_i - phi e_(i-1))^2, the unconditional least
    squares of Box and Jenkins (1970), which is a parabola in phi.
    """
    total, neighbours = float(off @ off), float(off[1:] @ off[:-1])
    inner = float(off[1:-1] @ off[1:-1])
    phi = min(max(neighbours / inner, 0.0), MOST_CORRELATED) if inner > 0 else 0.0
    return max(total - 2 * phi * neighbours + phi**2 * inner, ROUNDING * len(off))


def chances(x: np.ndarray, borders: Sequence[int]) -> list[float]:
    """Returns for each border the chance of such a step anywhere in as long a series without one,
    the other borders standing: the larger of that of the innovations and that of `_apart`.
    """
    n = len(x)
    off = residuals(x, borders)
    least = innovations(off)
    freedom = n - len(borders) - 2
    by_border = []
    for start, border, end in zip([0, *borders], borders, [*borders[1:], n], strict=False):
        joined = off.copy()
        joined[start:end] = x[start:end] - x[start:end].mean()
        gained = math.log(max(innovations(joined) / least, 1.0))
        # Student's t^2 is freedom (e^gained - 1), and so far in the normal distribution's tail lies
        # this: Wallace, Annals of Mathematical Statistics 30, 1959.
        z = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * gained)
        by_border.append(anywhere(min(z, _apart(x, off, start, border, end)), n))
    return by_border


def _apart(x: np.ndarray, off: np.ndarray, start: int, border: int, end: int) -> float:
    """Returns the step in standard errors that follow from the spread of either segment, so that a
    few points that are wild are no new level (Welch, Biometrika 34, 1947; variances moderated as in
    Smyth 2004).
    """
    common = float(off @ off) / len(off)
    variance = ROUNDING
    for a, b in ((start, border), (border, end)):
        own = float(off[a:b] @ off[a:b])
        variance += (own + BORROWED * common) / (b - a - 1 + BORROWED) / (b - a)
    return abs(float(x[border:end].mean() - x[start:border].mean())) / math.sqrt(variance)


def anywhere(z: float, n: int) -> float:
    """Returns the chance that the largest of all steps of a series of n points without a change is
    z standard errors or more, at least 5 points being on either side.

    Miller and Siegmund, Biometrics 38, 1982: the largest of a standardised Brownian bridge.
    """
    if z <= 1:
        return 1.0
    density = math.exp(-(min(z, 30.0) ** 2) / 2) / math.sqrt(2 * math.pi)
    chance = density * (4 / z + (z - 1 / z) * 2 * math.log((n - SHORTEST) / SHORTEST))
    return min(max(chance, LEAST_CHANCE), 1.0)
