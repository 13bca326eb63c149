"""Finds change points of a series of measurements over time: where the level moved for good, not
where it spiked.

Penalised optimal partition on the log scale (Killick, Fearnhead and Eckley, JASA 107, 2012), with
the long-run variance of autocorrelated noise in the penalty, spikes clipped beforehand, and the
significance of each change from simulated series without one. How often it is wrong is measured in
docs/gate.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import msgspec
import numpy as np

from .estimates import autocorrelation

# Points that a segment has at least, so that a spike of up to 4 is no level.
SHORTEST = 5
# Points for which a level must be held before it counts although the series went back.
LASTING = 10
# Factor of 2 sigma^2 ln(n), the cost of a border (n points; 1 would be the Schwarz criterion's).
PENALTY = 4.0
# Relative step below which a change does not matter to anybody.
SMALLEST = 0.005
# The same in standard deviations of the noise.
LEAST_SIGMAS = 1.5
# Points of the running median to which spikes are clipped: twice SHORTEST and the point itself.
CLIP_WINDOW = 11
# Robust standard deviations from the running median beyond which a point is clipped.
CLIP_SIGMAS = 4.0
# Cap of the noise's lag-1 correlation phi: the long-run variance has 1 - phi below the line.
MOST_CORRELATED = 0.9
# Simulated series without a change that a step is compared with: p can be as small as 1 / 501.
NULLS = 500
# Chance of a step in a series without one, above which a change is dropped.
ALPHA = 0.05
# Numbers of newest points that can bring a provisional alarm: too few for a segment.
YOUNG = (3, 4)
# Simulated series for the provisional alarm, whose small level needs more of them.
TIP_NULLS = 5000
# Chance of a provisional alarm in a series without a change, per new point.
TIP_ALPHA = 0.001
# Points before the young ones that make the level they are compared with, at most.
TIP_LEVEL = 50
# A normal distribution's standard deviation over its median absolute deviation from the median.
MAD_TO_SIGMA = 1.4826


class ChangePoint(msgspec.Struct, frozen=True):
    """A level that moved.

    index: the first point of the new level. effect: new level / old level - 1. p: chance of such a
    step anywhere in as long a series without one.
    """

    index: int
    effect: float
    p: float


def change_points(values: Sequence[float]) -> tuple[ChangePoint, ...]:
    """Returns the change points of a series in the order of time.

    values: positive, oldest first. Raises ValueError where one is 0, negative, infinite or NaN.
    """
    x = np.asarray(values, dtype=float)
    if not (np.isfinite(x).all() and (x > 0).all()):
        raise ValueError("a series must be of finite numbers above 0")
    if len(x) < 2 * SHORTEST:
        return ()
    x = clipped(np.log(x))
    borders, sigma, phi = _fitted(x)
    least = max(math.log1p(SMALLEST), LEAST_SIGMAS * sigma)
    borders = merged(x, held(x, lasting(x, merged(x, borders, least))), least)
    steps = [_significance(x, borders, index, sigma, phi) for index in range(len(borders))]
    return tuple(step for step in steps if step.p <= ALPHA)


def _fitted(x: np.ndarray) -> tuple[list[int], float, float]:
    """Returns the borders of the best partition, and the noise about its levels: standard deviation
    and lag-1 correlation. The noise sets the penalty and the penalty the borders, so three rounds.
    """
    sigma, phi = _noise(np.diff(x) / math.sqrt(2)), 0.0
    borders: list[int] = []
    tried: dict[float, list[int]] = {}
    for _ in range(3):
        penalty = 2 * PENALTY * sigma**2 * (1 + phi) / (1 - phi) * math.log(len(x))
        if any(not earlier and penalty >= smaller for smaller, earlier in tried.items()):
            borders = []  # a larger penalty cannot bring borders where a smaller one brought none
            break
        if borders == (borders := tried.setdefault(penalty, partition(x, penalty))) and len(tried) > 1:
            break
        residuals = x - _levels(x, borders)
        sigma, phi = _noise(residuals), _correlation(residuals)
    return borders, sigma, phi


def provisional(values: Sequence[float], settled: Sequence[ChangePoint]) -> ChangePoint | None:
    """Returns a step that the last 3 or 4 points make, too young to be among the `settled` change
    points: each lies off the level before, to the same side. None where there is none.

    Its p is the chance that so many points do so in a series without a change, whose level and
    noise have to be estimated as well (simulated).
    """
    x = np.log(np.asarray(values, dtype=float))
    steps = []
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
            steps.append(ChangePoint(len(x) - young, math.expm1(float(np.mean(off))), p))
    return min(steps, key=lambda step: step.p, default=None)


def clipped(x: np.ndarray) -> np.ndarray:
    """Returns the series with each point at most 4 robust sigma from the running median of 11, so
    that a spike shorter than 5 points is no step.
    """
    half = CLIP_WINDOW // 2
    around = np.lib.stride_tricks.sliding_window_view(np.pad(x, half, mode="reflect"), CLIP_WINDOW)
    centre = np.median(around, axis=1)
    reach = CLIP_SIGMAS * _noise(x - centre)
    return np.asarray(np.clip(x, centre - reach, centre + reach))


def partition(x: np.ndarray, penalty: float) -> list[int]:
    """Returns the first indices of all segments but the first, of the partition with the least sum
    of squares plus a penalty a segment; segments have at least 5 points.

    Exact by dynamic programming over the last border; borders that can never be the best again are
    dropped (PELT).
    """
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
    borders, border = [], n
    while last[border] > 0:
        border = int(last[border])
        borders.append(border)
    return borders[::-1]


def merged(x: np.ndarray, borders: list[int], least: float) -> list[int]:
    """Returns the borders without steps below `least` (log scale), the smallest dropped first."""
    borders = list(borders)
    while borders:
        steps = [abs(step) for step in _steps(x, borders)]
        smallest = steps.index(min(steps))
        if steps[smallest] >= least:
            break
        del borders[smallest]
    return borders


def lasting(x: np.ndarray, borders: list[int]) -> list[int]:
    """Returns the borders without those of excursions: a level held for fewer than 10 points that
    then goes most of the way back, and a first level as short. The last level may be young.
    """
    borders = list(borders)
    while excursion := _excursion(x, borders):
        del borders[excursion]
    return borders


def _excursion(x: np.ndarray, borders: list[int]) -> slice | None:
    """Returns which of the borders belong to the first excursion; None where there is none."""
    edges = [0, *borders, len(x)]
    means = [float(x[start:end].mean()) for start, end in pairwise(edges)]
    for index in range(len(means) - 1):
        if edges[index + 1] - edges[index] >= LASTING:
            continue
        if index == 0:
            return slice(0, 1)
        there, over = means[index] - means[index - 1], means[index + 1] - means[index - 1]
        if abs(over) < abs(there) / 2:
            return slice(index - 1, index + 1)
    return None


def held(x: np.ndarray, borders: list[int]) -> list[int]:
    """Returns the borders without that of a young last level which fewer than 5 points hold: a
    segment has at least 5, and takes them from the level before if need be.
    """
    if not borders or len(x) - borders[-1] >= LASTING:
        return borders
    before = float(np.mean(x[borders[-2] if len(borders) > 1 else 0 : borders[-1]]))
    tip = x[borders[-1] :]
    there = np.abs(tip - np.median(tip)) < np.abs(tip - before)
    return borders if int(np.sum(there)) >= SHORTEST else borders[:-1]


def _segments(x: np.ndarray, borders: Sequence[int]) -> list[tuple[int, int]]:
    """Returns start and end (exclusive) of each segment."""
    return list(zip([0, *borders], [*borders, len(x)], strict=True))


def _levels(x: np.ndarray, borders: Sequence[int]) -> np.ndarray:
    """Returns for each point the mean of its segment."""
    return np.concatenate([np.full(end - start, x[start:end].mean()) for start, end in _segments(x, borders)])


def _steps(x: np.ndarray, borders: Sequence[int]) -> list[float]:
    """Returns the difference of the means on the two sides of each border."""
    means = [float(x[start:end].mean()) for start, end in _segments(x, borders)]
    return [after - before for before, after in pairwise(means)]


def _noise(residuals: np.ndarray) -> float:
    """Returns the robust standard deviation (by the MAD), at least that of the values' rounding."""
    return max(MAD_TO_SIGMA * float(np.median(np.abs(residuals - np.median(residuals)))), 1e-6)


def _correlation(residuals: np.ndarray) -> float:
    """Returns the lag-1 autocorrelation, in [0, MOST_CORRELATED]."""
    return min(max(autocorrelation(list(residuals)), 0.0), MOST_CORRELATED)


def _significance(x: np.ndarray, borders: list[int], index: int, sigma: float, phi: float) -> ChangePoint:
    """Returns the step at a border with its p: its size against its two neighbouring segments is
    compared with the largest such statistic in null series of the same length.
    """
    start, border, end = [0, *borders, len(x)][index : index + 3]
    step = _steps(x, borders)[index]
    statistic = abs(step) / sigma * math.sqrt((border - start) * (end - border) / (end - start))
    nulls = _largest_of_nulls(_rounded(len(x)), round(phi, 1))
    p = (1 + int(np.sum(nulls >= statistic))) / (1 + len(nulls))
    return ChangePoint(border, math.expm1(step), p)


def _rounded(n: int) -> int:
    """Returns the length rounded up to a step of a quarter of it at most, so that few null
    distributions serve all series; a longer null is the stricter one.
    """
    step = 1 << max(0, n.bit_length() - 3)
    return -(-n // step) * step


def _without_change(count: int, n: int, phi: float) -> np.ndarray:
    """Returns simulated AR(1) series of unit variance, one a row (count, n)."""
    from scipy.signal import lfilter  # slow to import, and a short series does without

    noise = np.random.default_rng(n).standard_normal((count, n + 50))
    return np.asarray(lfilter([math.sqrt(1 - phi**2)], [1, -phi], noise, axis=1)[:, 50:])


@lru_cache(maxsize=256)
def _nearest_of_nulls(n: int, young: int, phi: float) -> np.ndarray:
    """Returns for each simulated series how far the nearest of its last `young` points lies off the
    n before, in robust sigma of those, or 0 where they are not all on the same side (TIP_NULLS,).
    """
    series = _without_change(TIP_NULLS, n + young, phi)
    level = series[:, :n]
    off = series[:, n:] - level.mean(axis=1, keepdims=True)
    residuals = np.abs(level - np.median(level, axis=1, keepdims=True))
    same = np.abs(np.sign(off).sum(axis=1)) == young
    sigma = MAD_TO_SIGMA * np.median(residuals, axis=1)
    return np.asarray(np.where(same, np.abs(off).min(axis=1) / sigma, 0.0))


@lru_cache(maxsize=256)
def _largest_of_nulls(n: int, phi: float) -> np.ndarray:
    """Returns the largest standardised step of each simulated AR(1) series of unit variance and
    length n without a change (NULLS,).
    """
    series = _without_change(NULLS, n, phi)
    sums = np.cumsum(series, axis=1)
    k = np.arange(SHORTEST, n - SHORTEST + 1)
    before, after = sums[:, k - 1] / k, (sums[:, -1:] - sums[:, k - 1]) / (n - k)
    return np.asarray(np.max(np.abs(after - before) * np.sqrt(k * (n - k) / n), axis=1))
