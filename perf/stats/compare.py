"""Is HEAD worse than BASE?

One-sided tests about a tolerance, with a stated error rate, and three verdicts (shared/MEASURING.md
b).

Values are on the log scale and point one way: above 0 is worse. A block of a lockstep race gives
one value, the log ratio of its two sides; two files measured at different times share no block and
are compared as two samples (`apart`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from statistics import stdev
from typing import TYPE_CHECKING, Literal

import msgspec

from .estimates import fmean, student_t

if TYPE_CHECKING:
    import numpy as np

Outcome = Literal["pass", "regression", "inconclusive", "not_comparable"]

LOOKS = (6, 9, 12, 16)
# Of the chance of a false alarm of hotlap ab, the latencies' share; the other metrics (memory, what
# the policy names) have the rest.
LATENCY_SHARE = 0.9
POWER = 0.9
TRIALS = 400_000
# Below this the simulation has too few events, and the looks share alpha instead (Bonferroni),
# which is never too bold.
RAREST = 2e-4


class Judgement(msgspec.Struct, frozen=True):
    """low, high: 95 % interval of `ratio` = HEAD / BASE in the direction that is worse. p_worse,
    p_fine: one-sided, of being at most and at least the tolerance.

    least_tolerance: the smallest that could have passed. detectable: the worsening that would have
    been found with 90 % power. Both are ratios - 1.
    """

    verdict: Outcome
    n: float
    ratio: float
    low: float
    high: float
    p_worse: float
    p_fine: float
    least_tolerance: float
    detectable: float


@lru_cache
def level(alpha: float, looks: tuple[int, ...] = LOOKS) -> tuple[float, tuple[int, ...]]:
    """One-sided level for each look that keeps the whole sequence at alpha, and the looks at which
    it can be reached.

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
    import numpy as np

    return float(np.quantile(np.min([_nulls(n) for n in looks], axis=0), alpha))


@lru_cache
def _nulls(n: int) -> np.ndarray:
    """One-sided p of Student's t after n values of each simulated race without a change (TRIALS,);
    all n see the same races.
    """
    import numpy as np
    from scipy.special import stdtr

    values = np.random.default_rng(1977).standard_normal((max(n, *LOOKS), TRIALS))[:n]
    mean = values.mean(0)
    spread = np.sqrt(np.einsum("ij,ij->j", values, values) / (n - 1) - mean**2 * (n / (n - 1)))
    return np.asarray(stdtr(n - 1, -mean / (spread / math.sqrt(n))))


@lru_cache
def interval_tail() -> float:
    """Per side, for a 95 % interval at whichever look the race stopped."""
    return _simulated(0.025, LOOKS)


def sign_flip(values: Sequence[float]) -> float:
    """Exact one-sided p of a symmetric distribution about 0: the share of all sign patterns whose
    sum is at least the one seen (Fisher, The Design of Experiments, 1935).

    n is at most 24 (16 million patterns).
    """
    import numpy as np

    if len(values) > 24:
        raise ValueError(f"{len(values)} values: the exact test is for at most 24")
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + abs(value), sums - abs(value)])
    seen = math.fsum(values)
    slack = 1e-12 * sum(abs(value) for value in values)  # sums of the same numbers in another order
    return float(np.mean(sums >= seen - slack))


def p_above(values: Sequence[float], margin: float) -> float:
    """One-sided p of `the mean is at most margin`: the larger of Student's t and the sign-flip
    test, which is left out where t alone says no.
    """
    moved = [value - margin for value in values]
    p = _p_t(fmean(moved), stdev(moved) / math.sqrt(len(moved)), len(moved) - 1)
    return max(p, sign_flip(moved)) if p < 0.5 else p


def _p_t(mean: float, error: float, freedom: float) -> float:
    from scipy.special import stdtr

    if error == 0:
        return 0.0 if mean > 0 else 1.0
    return float(stdtr(freedom, -mean / error))


def lockstep(values: Sequence[float], tolerance: float, worse_level: float, fine_level: float) -> Judgement:
    """Log ratios of the blocks of one race, at one look; needs two or more.

    The levels are those of `level`, after Holm where there are many cases.
    """
    margin, n = math.log1p(tolerance), len(values)
    error = stdev(values) / math.sqrt(n)
    p_worse, p_fine = p_above(values, margin), p_above([-value for value in values], -margin)
    return _judgement(
        fmean(values), error, n - 1, n, margin, p_worse, p_fine, worse_level, fine_level, interval_tail()
    )


def apart(
    base: Sequence[float],
    head: Sequence[float],
    tolerance: float,
    worse_level: float,
    fine_level: float,
    job_sd: float = 0.0,
) -> Judgement:
    """Two samples of block values of different jobs:

    Welch's t (Biometrika 34, 1947); two or more each.

    job_sd: how much the same code differs between jobs (standard deviation of a log mean), for
    samples that no pace ties together.
    """
    parts = [stdev(side) ** 2 / len(side) for side in (base, head)]
    variance = sum(parts) + 2 * job_sd**2
    below = sum(part**2 / (len(side) - 1) for part, side in zip(parts, (base, head), strict=True))
    freedom = min(variance**2 / below, 1e9) if below > 0 else 1e9
    return from_error(
        fmean(head) - fmean(base),
        math.sqrt(variance),
        freedom,
        min(len(base), len(head)),
        tolerance,
        worse_level,
        fine_level,
    )


def from_error(
    mean: float,
    error: float,
    freedom: float,
    n: float,
    tolerance: float,
    worse_level: float,
    fine_level: float,
) -> Judgement:
    """A log ratio whose standard error is known with so many degrees of freedom: Student's t."""
    margin = math.log1p(tolerance)
    p_worse, p_fine = _p_t(mean - margin, error, freedom), _p_t(margin - mean, error, freedom)
    return _judgement(mean, error, freedom, n, margin, p_worse, p_fine, worse_level, fine_level, 0.025)


def _judgement(
    mean: float,
    error: float,
    freedom: float,
    n: float,
    margin: float,
    p_worse: float,
    p_fine: float,
    worse_level: float,
    fine_level: float,
    tail: float,
) -> Judgement:
    verdict: Outcome = (
        "regression" if p_worse <= worse_level else "pass" if p_fine <= fine_level else "inconclusive"
    )
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
    """e to this power, where that is a number: an interval may be wider than any."""
    return math.exp(min(value, 700.0))


def holm(p: Sequence[float], levels: Sequence[float]) -> list[float]:
    """The level at which each of several tests is to be judged (Holm, Scand.

    J. Stat. 6, 1979): the smallest p at levels[m - 1], the next at levels[m - 2], and so on.

    levels[k - 1] is the level for alpha / k. After the first p above its level all the others are
    judged at a level that none of them reaches.
    """
    levels = list(accumulate(levels, min))
    found, stopped = [0.0] * len(p), False
    for rank, at in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        each = levels[len(p) - rank - 1]
        stopped = stopped or p[at] > each
        found[at] = min(each, levels[len(p) - 1]) if stopped else each
    return found
