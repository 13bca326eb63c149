"""Finds change points of a series of measurements over time: where the level moved for good, not
where it spiked.

Spikes clipped; the optimal partitions under three penalties (partition.py); of each the steps that
neither correlation nor chance explains (chance.py), the best description of the series; without
steps too small to matter and excursions. A series that alternates between two levels has none
(two_levels.py). How often it is wrong is measured in docs/gate.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import msgspec
import numpy as np

from .chance import ROUNDING, chances, innovations, residuals, segments
from .estimates import autocorrelation
from .partition import SHORTEST as SHORTEST
from .partition import partition as partition
from .two_levels import LASTING as LASTING
from .two_levels import two_levels

# Points below which nothing is a change: of 13 in any order, all larger ones stand on one side of
# some border with a chance of 0.54 %, of 14 with 0.39 %; at most 0.5 % may be wrong.
FEWEST = 14
# Cost of a border in ln(n), of n points: the modified Bayesian criterion (Zhang and Siegmund,
# Biometrics 63, 2007), since a place is worth more than a parameter.
PENALTY = 3.0
# Long-run variances that are tried, in half the differences' variance: (1 + phi) / (1 - phi)^2 for
# a correlation phi of 0, 1/3 and 3/5.
LONG_RUN = (1.0, 3.0, 10.0)
# Relative step below which a change does not matter to anybody.
SMALLEST = 0.005
# The same in standard deviations of the noise.
LEAST_SIGMAS = 1.5
# Points of the running median to which spikes are clipped: twice SHORTEST and the point itself.
CLIP_WINDOW = 11
# Robust standard deviations from the running median beyond which a point is clipped.
CLIP_SIGMAS = 4.0
# Chance of a step in a series without one, above which a change is dropped: whatever the length, at
# most 0.5 % of series of independent noise or of AR(0.3) noise then seem to have one.
ALPHA = 0.008
# Numbers of newest points that can bring a provisional alarm: too few for a segment.
YOUNG = (3, 4)
# Cap of the lag-1 correlation phi for the provisional alarm: its null series are started at rest.
MOST_CORRELATED = 0.9
# Simulated series for the provisional alarm, whose small level needs many of them.
TIP_NULLS = 5000
# Chance of a provisional alarm in a series without a change, per new point.
TIP_ALPHA = 0.001
# Points before the young ones that make the level they are compared with, at most.
TIP_LEVEL = 50
# Share of the points whose distance from the middle makes a spread: fewer than 1 - it may be off.
SPREAD_SHARE = 0.75
# A normal distribution's standard deviation over that distance.
TO_SIGMA = 1 / 1.1503


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
    if len(x) < FEWEST:
        return ()
    x = clipped(np.log(x))
    borders = described(x)
    if not borders or two_levels(values):
        return ()
    least = max(math.log1p(SMALLEST), LEAST_SIGMAS * spread(residuals(x, borders)))
    by_border = believed(x, merged(x, held(x, lasting(x, merged(x, borders, least))), least))
    steps = _steps(x, list(by_border))
    return tuple(
        ChangePoint(border, math.expm1(step), p)
        for (border, p), step in zip(by_border.items(), steps, strict=True)
    )


def described(x: np.ndarray) -> list[int]:
    """Returns the borders that describe a series best: of the partitions under the penalties for
    noise of several correlations, each without what chance explains, that with the largest
    likelihood of levels with AR(1) noise, less the penalty a border.
    """
    n = len(x)
    # Differences know nothing of the levels, but for the few across a border.
    variance = spread(np.diff(x)) ** 2 / 2
    borders: list[int] = []
    candidates = [borders]
    for factor in LONG_RUN:
        earlier, borders = borders, partition(x, PENALTY * factor * variance * math.log(n))
        if not borders:
            break  # a larger penalty cannot bring borders where a smaller one brought none
        if borders != earlier:
            candidates.append(list(believed(x, borders)))

    def criterion(borders: list[int]) -> float:
        return n * math.log(innovations(residuals(x, borders))) + PENALTY * len(borders) * math.log(n)

    return min(candidates, key=criterion)


def believed(x: np.ndarray, borders: Sequence[int]) -> dict[int, float]:
    """Returns the borders without those that chance explains, the likeliest dropped first; with the
    chance of each.
    """
    by_border = dict(zip(borders, chances(x, borders), strict=True))
    while by_border:
        likeliest = max(by_border, key=lambda border: by_border[border])
        if by_border[likeliest] <= ALPHA:
            break
        left = [border for border in by_border if border != likeliest]
        by_border = dict(zip(left, chances(x, left), strict=True))
    return by_border


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
        level = clipped(level[-TIP_LEVEL:])
        centre, sigma = float(np.mean(level)), spread(level - np.mean(level))
        off = x[-young:] - centre
        nearest = float(np.min(np.abs(off))) if abs(np.sum(np.sign(off))) == young else 0.0
        nulls = _nearest_of_nulls(len(level), young, round(_correlation(level - centre), 1))
        p = (1 + int(np.sum(nulls >= nearest / sigma))) / (1 + len(nulls))
        if p <= TIP_ALPHA and abs(float(np.mean(off))) >= max(math.log1p(SMALLEST), LEAST_SIGMAS * sigma):
            steps.append(ChangePoint(len(x) - young, math.expm1(float(np.mean(off))), p))
    if not steps or two_levels(values):
        return None
    return min(steps, key=lambda step: step.p)


def clipped(x: np.ndarray) -> np.ndarray:
    """Returns the series with each point at most 4 robust sigma from the running median of 11, so
    that a spike shorter than 5 points is no step. Sigma is at least that of rounded values.
    """
    half = CLIP_WINDOW // 2
    mirrored = np.concatenate([x[half:0:-1], x, x[-2 : -half - 2 : -1]])
    around = np.lib.stride_tricks.sliding_window_view(mirrored, CLIP_WINDOW)
    centre = np.partition(around, half, axis=1)[:, half]
    spacings = np.diff(np.sort(x))
    rounding = float(np.min(spacings, where=spacings > math.sqrt(ROUNDING), initial=np.inf))
    sigma = max(spread(x - centre), rounding / math.sqrt(12))
    return np.asarray(np.clip(x, centre - CLIP_SIGMAS * sigma, centre + CLIP_SIGMAS * sigma))


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
    then goes most of the way back, and a first level as short unless all that follows is as young.
    The last level may be young.
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
            if len(x) - borders[0] >= LASTING:
                return slice(0, 1)
            continue
        there, over = means[index] - means[index - 1], means[index + 1] - means[index - 1]
        if abs(over) < abs(there) / 2:
            return slice(index - 1, index + 1)
    return None


def held(x: np.ndarray, borders: list[int]) -> list[int]:
    """Returns the borders without that of a young last level which fewer than 5 points hold: a
    segment has at least 5, and takes them from the level before if need be, or from after a spike.
    """
    if not borders or len(x) - borders[-1] >= LASTING:
        return borders
    before = float(np.mean(x[borders[-2] if len(borders) > 1 else 0 : borders[-1]]))
    tip = x[borders[-1] :]
    there = np.flatnonzero(np.abs(tip - np.median(tip)) < np.abs(tip - before))
    return borders if len(there) and there[-1] - there[0] >= SHORTEST - 1 else borders[:-1]


def _steps(x: np.ndarray, borders: Sequence[int]) -> list[float]:
    """Returns the difference of the means on the two sides of each border."""
    means = [float(x[start:end].mean()) for start, end in segments(x, borders)]
    return [after - before for before, after in pairwise(means)]


def spread(x: np.ndarray) -> float:
    """Returns the robust standard deviation about the median, at least that of the values'
    rounding: from the distance within which three quarters of the points lie.
    """
    return float(_spreads(x[None])[0])


def _spreads(rows: np.ndarray) -> np.ndarray:
    """Returns the robust standard deviation of each row."""
    n = rows.shape[1]
    middle = np.partition(rows, n // 2, axis=1)[:, n // 2, None]
    index = math.floor(SPREAD_SHARE * (n - 1) + 0.5)
    distances = np.partition(np.abs(rows - middle), index, axis=1)[:, index]
    return np.asarray(np.maximum(TO_SIGMA * distances, math.sqrt(ROUNDING)))


def _correlation(off: np.ndarray) -> float:
    """Returns the lag-1 autocorrelation, in [0, MOST_CORRELATED]."""
    return min(max(autocorrelation(list(off)), 0.0), MOST_CORRELATED)


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
    same = np.abs(np.sign(off).sum(axis=1)) == young
    return np.asarray(np.where(same, np.abs(off).min(axis=1) / _spreads(level), 0.0))
