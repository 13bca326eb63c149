"""Change points of a series of measurements over time: where the level moved for good, not where it
spiked.

Penalised optimal partition on the log scale (Killick, Fearnhead and Eckley, JASA 107, 2012), with
the long-run variance of autocorrelated noise in the penalty, spikes clipped beforehand, and the
significance of each change from simulated series without one (shared/MEASURING.md c).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import numpy as np

SHORTEST, LASTING = 5, 10
PENALTY = 4.0
SMALLEST = 0.005
LEAST_SIGMAS = 1.5
CLIP_WINDOW, CLIP_SIGMAS = 11, 4.0
MOST_CORRELATED = 0.9
NULLS = 500
ALPHA = 0.05
# Points that bring a provisional alarm, and its chance in a series without a change, a point. The
# level before them is that of 50 points at most.
YOUNG = (3, 4)
TIP_NULLS, TIP_ALPHA, TIP_LEVEL = 5000, 0.001, 50


class ChangePoint(msgspec.Struct, frozen=True):
    """index: the first point of the new level.

    effect: new level / old level - 1. p: chance of such a step anywhere in as long a series without
    one.
    """

    index: int
    effect: float
    p: float


def change_points(values: Sequence[float]) -> tuple[ChangePoint, ...]:
    """In the order of time.

    Values are positive, oldest first; NaN and values of 0 or less raise ValueError.
    """
    import numpy as np

    x = np.asarray(values, dtype=float)
    if not (np.isfinite(x).all() and (x > 0).all()):
        raise ValueError("a series must be of finite numbers above 0")
    if len(x) < 2 * SHORTEST:
        return ()
    x = clipped(np.log(x))
    sigma, phi = _noise(np.diff(x) / math.sqrt(2)), 0.0
    borders: list[int] = []
    tried: dict[float, list[int]] = {}
    for _ in range(3):
        penalty = 2 * PENALTY * sigma**2 * (1 + phi) / (1 - phi) * math.log(len(x))
        if any(not found and penalty >= smaller for smaller, found in tried.items()):
            borders = []  # a larger penalty cannot bring borders where a smaller one brought none
            break
        if borders == (borders := tried.setdefault(penalty, partition(x, penalty))) and len(tried) > 1:
            break
        residuals = x - _levels(x, borders)
        sigma, phi = _noise(residuals), _correlation(residuals)
    least = max(math.log1p(SMALLEST), LEAST_SIGMAS * sigma)
    borders = merged(x, held(x, lasting(x, merged(x, borders, least))), least)
    found = [_significance(x, borders, at, sigma, phi) for at in range(len(borders))]
    return tuple(one for one in found if one.p <= ALPHA)


def provisional(values: Sequence[float], settled: Sequence[ChangePoint]) -> ChangePoint | None:
    """A step that the last 3 or 4 points make, too young to be among the `settled` change points:
    each lies off the level before, to the same side.

    p is the chance that so many points do so in a series without a change, whose level and noise
    have to be estimated as well (simulated).
    """
    import numpy as np

    x = np.log(np.asarray(values, dtype=float))
    found = []
    for young in YOUNG:
        level = x[settled[-1].index if settled else 0 : -young]
        if len(level) < 2 * SHORTEST:
            continue
        level = clipped(level)[-TIP_LEVEL:]
        centre, sigma = float(np.mean(level)), _noise(level - np.mean(level))
        off = x[-young:] - centre
        nearest = float(np.min(np.abs(off))) if abs(np.sum(np.sign(off))) == young else 0.0
        nulls = _nearest_of_nulls(len(level), young, round(_correlation(level - centre), 1))
        p = (1 + int(np.sum(nulls >= nearest / sigma))) / (1 + len(nulls))
        if p <= TIP_ALPHA and abs(float(np.mean(off))) >= max(math.log1p(SMALLEST), LEAST_SIGMAS * sigma):
            found.append(ChangePoint(len(x) - young, math.expm1(float(np.mean(off))), p))
    return min(found, key=lambda one: one.p, default=None)


def clipped(x: np.ndarray) -> np.ndarray:
    """At most 4 robust sigma from the running median of 11, so that a spike shorter than 5 points
    is no step.
    """
    import numpy as np

    half = CLIP_WINDOW // 2
    around = np.lib.stride_tricks.sliding_window_view(np.pad(x, half, mode="reflect"), CLIP_WINDOW)
    centre = np.median(around, axis=1)
    reach = CLIP_SIGMAS * _noise(x - centre)
    return np.asarray(np.clip(x, centre - reach, centre + reach))


def partition(x: np.ndarray, penalty: float) -> list[int]:
    """First indices of all segments but the first: least sum of squares plus a penalty a segment,
    segments of at least 5 points.

    Exact by dynamic programming over the last border; borders that can never be the best again are
    dropped (PELT).
    """
    import numpy as np

    n = len(x)
    sums, squares = np.concatenate([[0.0], np.cumsum(x)]), np.concatenate([[0.0], np.cumsum(x * x)])
    best = np.full(n + 1, np.inf)
    best[0] = -penalty
    last = np.zeros(n + 1, dtype=int)
    alive, until = np.array([0]), np.array([n])
    for end in range(SHORTEST, n + 1):
        ripe = alive <= end - SHORTEST
        fits = alive[ripe]
        total = best[fits] + squares[end] - squares[fits] - (sums[end] - sums[fits]) ** 2 / (end - fits)
        chosen = int(np.argmin(total))
        best[end], last[end] = total[chosen] + penalty, fits[chosen]
        # `end` beats these as the last border, from when a segment may begin at `end` on.
        until[ripe] = np.where(total > best[end], np.minimum(until[ripe], end + SHORTEST), until[ripe])
        kept = until > end
        alive, until = np.append(alive[kept], end), np.append(until[kept], n)
    borders, at = [], n
    while last[at] > 0:
        at = int(last[at])
        borders.append(at)
    return borders[::-1]


def merged(x: np.ndarray, borders: list[int], least: float) -> list[int]:
    """Without the steps smaller than `least`, the smallest first."""
    borders = list(borders)
    while borders:
        steps = [abs(step) for step in _steps(x, borders)]
        at = steps.index(min(steps))
        if steps[at] >= least:
            break
        del borders[at]
    return borders


def lasting(x: np.ndarray, borders: list[int]) -> list[int]:
    """Without excursions: a level held for fewer than 10 points that then goes most of the way
    back, and a first level as short. The last one may be young.
    """
    borders = list(borders)
    while True:
        edges = [0, *borders, len(x)]
        means = [float(x[start:end].mean()) for start, end in pairwise(edges)]
        for at in range(len(means) - 1):
            if edges[at + 1] - edges[at] < LASTING:
                if at == 0:
                    del borders[0]
                    break
                if abs(means[at + 1] - means[at - 1]) < abs(means[at] - means[at - 1]) / 2:
                    del borders[at - 1 : at + 1]
                    break
        else:
            return borders


def held(x: np.ndarray, borders: list[int]) -> list[int]:
    """Without a young last level that fewer than 5 points are at: a segment has at least 5, and
    takes them from the level before if need be.
    """
    import numpy as np

    if not borders or len(x) - borders[-1] >= LASTING:
        return borders
    before = float(np.mean(x[borders[-2] if len(borders) > 1 else 0 : borders[-1]]))
    tip = x[borders[-1] :]
    there = np.abs(tip - np.median(tip)) < np.abs(tip - before)
    return borders if int(np.sum(there)) >= SHORTEST else borders[:-1]


def _segments(x: np.ndarray, borders: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip([0, *borders], [*borders, len(x)], strict=True))


def _levels(x: np.ndarray, borders: Sequence[int]) -> np.ndarray:
    """Each point's segment mean."""
    import numpy as np

    return np.concatenate([np.full(end - start, x[start:end].mean()) for start, end in _segments(x, borders)])


def _steps(x: np.ndarray, borders: Sequence[int]) -> list[float]:
    means = [float(x[start:end].mean()) for start, end in _segments(x, borders)]
    return [after - before for before, after in pairwise(means)]


def _noise(residuals: np.ndarray) -> float:
    """Robust standard deviation (1.4826 MAD), at least that of the values' rounding."""
    import numpy as np

    return max(1.4826 * float(np.median(np.abs(residuals - np.median(residuals)))), 1e-6)


def _correlation(residuals: np.ndarray) -> float:
    from .estimates import autocorrelation

    return min(max(autocorrelation(list(residuals)), 0.0), MOST_CORRELATED)


def _significance(x: np.ndarray, borders: list[int], at: int, sigma: float, phi: float) -> ChangePoint:
    """The step against its two neighbouring segments, by the largest such statistic in null series
    of the same length.
    """
    import numpy as np

    start, border, end = [0, *borders, len(x)][at : at + 3]
    step = _steps(x, borders)[at]
    statistic = abs(step) / sigma * math.sqrt((border - start) * (end - border) / (end - start))
    nulls = _largest_of_nulls(_rounded(len(x)), round(phi, 1))
    p = (1 + int(np.sum(nulls >= statistic))) / (1 + len(nulls))
    return ChangePoint(border, math.expm1(step), p)


def _rounded(n: int) -> int:
    """Lengths in steps of a quarter, upwards, so that few null distributions serve all series; a
    longer null is the stricter one.
    """
    step = 1 << max(0, n.bit_length() - 3)
    return -(-n // step) * step


def _without_change(count: int, n: int, phi: float) -> np.ndarray:
    """Simulated AR(1) series of unit variance (count, n)."""
    import numpy as np
    from scipy.signal import lfilter

    noise = np.random.default_rng(n).standard_normal((count, n + 50))
    return np.asarray(lfilter([math.sqrt(1 - phi**2)], [1, -phi], noise, axis=1)[:, 50:])


@lru_cache(maxsize=256)
def _nearest_of_nulls(n: int, young: int, phi: float) -> np.ndarray:
    """How far the nearest of the last `young` points lies off the n before, all on the same side or
    else 0, in robust sigma of those (TIP_NULLS,).
    """
    import numpy as np

    series = _without_change(TIP_NULLS, n + young, phi)
    level = series[:, :n]
    off = series[:, n:] - level.mean(axis=1, keepdims=True)
    residuals = np.abs(level - np.median(level, axis=1, keepdims=True))
    same = np.abs(np.sign(off).sum(axis=1)) == young
    return np.asarray(np.where(same, np.abs(off).min(axis=1) / (1.4826 * np.median(residuals, axis=1)), 0.0))


@lru_cache(maxsize=256)
def _largest_of_nulls(n: int, phi: float) -> np.ndarray:
    """The largest standardised step of simulated AR(1) series of unit variance and length n without
    a change (NULLS,).
    """
    import numpy as np

    series = _without_change(NULLS, n, phi)
    sums = np.cumsum(series, axis=1)
    k = np.arange(SHORTEST, n - SHORTEST + 1)
    before, after = sums[:, k - 1] / k, (sums[:, -1:] - sums[:, k - 1]) / (n - k)
    return np.asarray(np.max(np.abs(after - before) * np.sqrt(k * (n - k) / n), axis=1))
