"""Judges whether HEAD is worse than BASE: one-sided tests about a tolerance, with a stated error
rate, and three verdicts.

Values are on the log scale and point one way: above 0 is worse. A block of a lockstep race gives
one value, the log ratio of its two sides; two files measured at different times share no block and
are compared as two samples (`apart`). How often the verdicts are wrong is measured in docs/gate.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from statistics import stdev
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from .estimates import fmean, student_t

# numpy and scipy are imported where a test is computed: terms/ takes only the words from here, and
# `hotlap --help` and an asked plug-in must start without either.
if TYPE_CHECKING:
    import numpy as np

# How a judgement may end.
Outcome = Literal["pass", "regression", "inconclusive", "not_comparable"]

# Numbers of blocks after which a race is looked at: steps of about 4 / 3, few enough that a look
# keeps a level of 0.02 of 0.05.
LOOKS = (6, 9, 12, 16)
# Of the chance of a false alarm of hotlap ab, the latencies' share; the other metrics (memory, what
# the policy names) have the rest.
LATENCY_SHARE = 0.9
# Chance with which a worsening of the detectable size is found.
POWER = 0.9
# Simulated races behind the levels: a chance of 0.05 is known to 0.0003 (standard error).
TRIALS = 400_000
# Below this the simulation has too few events, and the looks share alpha instead (Bonferroni),
# which is never too bold.
RAREST = 2e-4
# Values that the exact sign-flip test takes at most: 16 million patterns.
MOST_FLIPPED = 24
# Largest power of e that is surely a float: an interval may be wider than any number.
LARGEST_LOG = 700.0


class Judgement(msgspec.Struct, frozen=True):
    """What the tests say of HEAD against BASE. Ratios are HEAD / BASE in the direction that is
    worse: above 1 HEAD is worse.
    """

    verdict: Outcome
    # Number of blocks; of two samples that of the smaller.
    n: float
    # Estimated ratio.
    ratio: float
    # Lower end of the ratio's 95 % interval.
    low: float
    # Upper end of the ratio's 95 % interval.
    high: float
    # One-sided p of the ratio being at most 1 + tolerance: small where HEAD is worse.
    p_worse: float
    # One-sided p of the ratio being at least 1 + tolerance: small where HEAD is fine.
    p_fine: float
    # The smallest tolerance that could have passed, as ratio - 1.
    least_tolerance: float
    # The worsening that would have been seen with 90 % power, as ratio - 1.
    detectable: float


@lru_cache
def level(alpha: float, looks: tuple[int, ...] = LOOKS) -> tuple[float, tuple[int, ...]]:
    """Returns the one-sided level of each look that keeps the whole sequence at alpha, and the
    looks at which it can be reached.

    Constant over the looks (Pocock, Biometrika 64, 1977), solved by simulation under normal values
    of unknown variance. With n blocks the sign-flip test cannot go below 2**-n, so a look with more
    than that is left out and the level solved again.
    """
    while True:
        each = alpha / len(looks) if alpha < RAREST else _simulated(alpha, looks)
        possible = tuple(n for n in looks if 2.0**-n <= each)
        if possible == looks or not possible:
            return each, possible
        looks = possible


def _simulated(alpha: float, looks: tuple[int, ...]) -> float:
    """Returns the level at which alpha of the simulated races alarm at any of the looks."""
    import numpy as np

    return float(np.quantile(np.min([_nulls(n) for n in looks], axis=0), alpha))


@lru_cache
def _nulls(n: int) -> np.ndarray:
    """Returns the one-sided p of Student's t after n values of each simulated race without a change
    (TRIALS,); all n see the same races.
    """
    import numpy as np
    from scipy.special import stdtr

    values = np.random.default_rng(1977).standard_normal((max(n, *LOOKS), TRIALS))[:n]
    mean = values.mean(0)
    spread = np.sqrt(np.einsum("ij,ij->j", values, values) / (n - 1) - mean**2 * (n / (n - 1)))
    return np.asarray(stdtr(n - 1, -mean / (spread / math.sqrt(n))))


@lru_cache
def interval_tail() -> float:
    """Returns the level per side of a 95 % interval that holds at whichever look the race stops."""
    return _simulated(0.025, LOOKS)


def sign_flip(values: Sequence[float]) -> float:
    """Returns the exact one-sided p of a symmetric distribution about 0: the share of all sign
    patterns whose sum is at least the one seen (Fisher, The Design of Experiments, 1935).

    Raises ValueError for more than 24 values.
    """
    import numpy as np

    if len(values) > MOST_FLIPPED:
        raise ValueError(f"{len(values)} values: the exact test is for at most {MOST_FLIPPED}")
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + abs(value), sums - abs(value)])
    seen = math.fsum(values)
    slack = 1e-12 * sum(abs(value) for value in values)  # sums of the same numbers in another order
    return float(np.mean(sums >= seen - slack))


def p_above(values: Sequence[float], margin: float) -> float:
    """Returns the one-sided p of `the mean is at most margin`: the larger of Student's t and the
    sign-flip test, which is left out where t alone says no.
    """
    moved = [value - margin for value in values]
    p = _p_t(fmean(moved), stdev(moved) / math.sqrt(len(moved)), len(moved) - 1)
    return max(p, sign_flip(moved)) if p < 0.5 else p


def _p_t(mean: float, error: float, freedom: float) -> float:
    """Returns the one-sided p of Student's t for a mean of at most 0."""
    from scipy.special import stdtr

    if error == 0:
        return 0.0 if mean > 0 else 1.0
    return float(stdtr(freedom, -mean / error))


class _Effect(NamedTuple):
    """A log ratio with its standard error, known with so many degrees of freedom, from n values."""

    mean: float
    error: float
    freedom: float
    n: float


def lockstep(values: Sequence[float], tolerance: float, worse_level: float, fine_level: float) -> Judgement:
    """Judges the blocks of one race at one look.

    values: log ratio of each block, two or more. The levels are those of `level`, after Holm where
    there are many cases.
    """
    margin, n = math.log1p(tolerance), len(values)
    effect = _Effect(fmean(values), stdev(values) / math.sqrt(n), n - 1, n)
    p_worse, p_fine = p_above(values, margin), p_above([-value for value in values], -margin)
    return _judgement(effect, margin, p_worse, p_fine, worse_level, fine_level, interval_tail())


def apart(
    base: Sequence[float],
    head: Sequence[float],
    tolerance: float,
    worse_level: float,
    fine_level: float,
    job_sd: float = 0.0,
    job_freedom: float = math.inf,
) -> Judgement:
    """Judges two samples of block values of different jobs by Welch's t (Biometrika 34, 1947).

    base, head: logs, two or more each. job_sd: how much the same code differs between jobs
    (standard deviation of a log mean), for samples that no pace ties together, known with
    `job_freedom` degrees of freedom.
    """
    parts = [stdev(side) ** 2 / len(side) for side in (base, head)]
    variance = sum(parts) + 2 * job_sd**2
    below = sum(part**2 / (len(side) - 1) for part, side in zip(parts, (base, head), strict=True))
    below += (2 * job_sd**2) ** 2 / job_freedom
    freedom = min(variance**2 / below, 1e9) if below > 0 else 1e9
    mean, n = fmean(head) - fmean(base), min(len(base), len(head))
    return from_error(mean, math.sqrt(variance), freedom, n, tolerance, worse_level, fine_level)


def from_error(
    mean: float,
    error: float,
    freedom: float,
    n: float,
    tolerance: float,
    worse_level: float,
    fine_level: float,
) -> Judgement:
    """Judges a log ratio by Student's t, given its standard error and the degrees of freedom with
    which that is known.
    """
    margin = math.log1p(tolerance)
    effect = _Effect(mean, error, freedom, n)
    p_worse, p_fine = _p_t(mean - margin, error, freedom), _p_t(margin - mean, error, freedom)
    return _judgement(effect, margin, p_worse, p_fine, worse_level, fine_level, 0.025)


def _judgement(
    effect: _Effect,
    margin: float,
    p_worse: float,
    p_fine: float,
    worse_level: float,
    fine_level: float,
    tail: float,
) -> Judgement:
    """Returns the judgement of an effect whose p values are known.

    margin: log of 1 + tolerance. tail: level per side of the interval.
    """
    verdict: Outcome = "inconclusive"
    if p_worse <= worse_level:
        verdict = "regression"
    elif p_fine <= fine_level:
        verdict = "pass"
    mean, error, freedom, n = effect
    half = student_t(1 - tail, freedom) * error
    power = student_t(POWER, freedom)
    return Judgement(
        verdict=verdict,
        n=n,
        ratio=_exp(mean),
        low=_exp(mean - half),
        high=_exp(mean + half),
        p_worse=p_worse,
        p_fine=p_fine,
        least_tolerance=_exp((student_t(1 - fine_level, freedom) + power) * error) - 1,
        detectable=_exp(margin + (student_t(1 - worse_level, freedom) + power) * error) - 1,
    )


def _exp(value: float) -> float:
    """Returns e to this power, or the largest that is a number."""
    return math.exp(min(value, LARGEST_LOG))


def holm(p: Sequence[float], levels: Sequence[float]) -> list[float]:
    """Returns the level at which each of several tests is to be judged (Holm, Scandinavian Journal
    of Statistics 6, 1979): the smallest p at levels[m - 1], the next at levels[m - 2], and so on.

    levels[k - 1] is the level for alpha / k. After the first p above its level all the others are
    judged at a level that none of them reaches.
    """
    levels = list(accumulate(levels, min))
    judged_at, stopped = [0.0] * len(p), False
    for rank, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        each = levels[len(p) - rank - 1]
        stopped = stopped or p[index] > each
        judged_at[index] = min(each, levels[len(p) - 1]) if stopped else each
    return judged_at
