"""Estimates from samples that come in blocks of fresh processes.

Samples of one process are correlated and processes differ, so a block gives one number, the median
of its samples, and intervals are over blocks. Everything positive is averaged on the log scale: a
ratio and its inverse then have the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean as fmean
from statistics import median as median
from statistics import stdev
from typing import Literal

import msgspec

# Samples in the order they were taken, by block.
Blocks = Sequence[Sequence[float]]

# Percentile -> its share q, and the fewest effective samples n for a 95 % confidence that it is not
# below its estimate: 1 - q**n >= 0.95 (MLPerf LoadGen's early stopping asks for the same).
TAIL_N = {"p90": (0.90, 29), "p95": (0.95, 59), "p99": (0.99, 299), "p99.9": (0.999, 2995)}

# Batches of one process's samples: 10 to 30 do (Schmeiser, Operations Research 30, 1982).
BATCHES = 16


class Estimate(msgspec.Struct, frozen=True):
    """A centre with its 95 % interval, and what the interval rests on."""

    # In the unit of the samples, as are the ends of the interval.
    centre: float
    low: float
    high: float
    # Blocks, or effective samples where only one process was affordable.
    n: float
    method: Literal["blocks", "batch means", "none"]

    @property
    def half_width(self) -> float:
        """Half the interval's width on the log scale; infinite where there is no interval."""
        if not (self.low > 0 and math.isfinite(self.high)):
            return math.inf
        return math.log(self.high / self.low) / 2


def student_t(probability: float, freedom: float) -> float:
    """Returns the quantile of Student's t distribution (Biometrika 6, 1908)."""
    from scipy.special import stdtrit  # no worker asks for a quantile, and each would load scipy

    return float(stdtrit(freedom, probability))


def autocorrelation(values: Sequence[float]) -> float:
    """Returns the lag-1 autocorrelation (Box and Jenkins 1970).

    It is 0 of a constant and of fewer than 3 values.
    """
    if len(values) < 3:
        return 0.0
    mean = fmean(values)
    around = [value - mean for value in values]
    total = sum(value * value for value in around)
    if total <= (1e-12 * abs(mean)) ** 2 * len(values):
        return 0.0
    return sum(a * b for a, b in pairwise(around)) / total


def effective_n(values: Sequence[float]) -> float:
    """Returns how many independent samples the correlated ones are worth: n (1 - r1) / (1 + r1), r1
    clipped to [0, 0.99].

    As of an AR(1) process: Bayley and Hammersley, Supplement to the J. R. Stat. Soc. 8, 1946.
    """
    r1 = min(max(autocorrelation(values), 0.0), 0.99)
    return len(values) * (1 - r1) / (1 + r1)


def interval_over_blocks(values: Sequence[float]) -> Estimate:
    """Returns centre and interval by Student's t over block values on the log scale.

    values: one or more, all positive; a single one has no interval. Each is of a fresh process, so
    that they are independent: Kalibera and Jones, ISMM 2013. Geometric means: Fleming and Wallace,
    CACM 29, 1986.
    """
    logs = [math.log(value) for value in values]
    centre = fmean(logs)
    if len(logs) < 2:
        return Estimate(math.exp(centre), 0.0, math.inf, len(logs), "none")
    half = student_t(0.975, len(logs) - 1) * stdev(logs) / math.sqrt(len(logs))
    return Estimate(math.exp(centre), math.exp(centre - half), math.exp(centre + half), len(logs), "blocks")


def interval_over_batches(samples: Sequence[float]) -> Estimate:
    """Returns what one process can say about itself: 16 batch means, t(15), the interval inflated
    by sqrt((1 + r1) / (1 - r1)). Fewer than 32 samples have no interval.

    Batch means: Schmeiser, Operations Research 30, 1982. The inflation: r1 is what the means are
    still correlated, clipped to [0, 0.8], and of an AR(1) process they are worth as many
    independent ones as `effective_n` says.
    """
    if len(samples) < 2 * BATCHES:
        return Estimate(median(samples), 0.0, math.inf, len(samples), "none")
    size = len(samples) // BATCHES
    batches = [samples[batch * size : (batch + 1) * size] for batch in range(BATCHES)]
    means = [fmean(math.log(value) for value in batch) for batch in batches]
    r1 = min(max(autocorrelation(means), 0.0), 0.8)
    half = student_t(0.975, BATCHES - 1) * stdev(means) / math.sqrt(BATCHES) * math.sqrt((1 + r1) / (1 - r1))
    centre, n = fmean(means), effective_n(samples)
    return Estimate(math.exp(centre), math.exp(centre - half), math.exp(centre + half), n, "batch means")


def estimate(blocks: Blocks) -> Estimate:
    """Returns centre and interval: over blocks from three on, over batch means of a single one.

    Values that are not positive give no interval. Raises ValueError where there are no samples.
    """
    filled = [block for block in blocks if block]
    if not filled:
        raise ValueError("no samples")
    medians = [median(block) for block in filled]
    if min(min(block) for block in filled) <= 0:
        return Estimate(fmean(medians), -math.inf, math.inf, len(medians), "none")
    if len(filled) >= 3:
        return interval_over_blocks(medians)
    if len(filled) == 1 and len(filled[0]) >= 2 * BATCHES:
        return interval_over_batches(filled[0])
    return _without_interval(medians)


def _without_interval(values: Sequence[float]) -> Estimate:
    """Returns the geometric mean of too few values for an interval."""
    centre = math.exp(fmean(math.log(value) for value in values))
    return Estimate(centre, 0.0, math.inf, len(values), "none")


def paired(base: Blocks, head: Blocks) -> list[list[float]]:
    """Returns head / base, round by round, of the blocks that both have.

    The two turns of a round are neighbours in time, so what hits one often hits both. A round that
    only one of them finished (Ctrl-C) has no pair.
    """
    return [[y / x for x, y in zip(a, b, strict=False)] for a, b in zip(base, head, strict=False) if a and b]


def ratio(base: Blocks, head: Blocks) -> Estimate:
    """Returns head / base of two entrants of one race; a block counts by the median of its rounds.

    Raises ValueError where they share no block. Paired, interleaved measurement: Bulej et al.,
    arXiv 2001.05811.
    """
    quotients = paired(base, head)
    if not quotients:
        raise ValueError("the two share no block")
    if len(quotients) == 1:
        return interval_over_batches(quotients[0])
    centres = [middle(block) for block in quotients]
    if len(centres) >= 3:
        return interval_over_blocks(centres)
    return _without_interval(centres)


def middle(values: Sequence[float]) -> float:
    """Returns the median on the log scale: the middle of inverses is the inverse of the middle."""
    return math.exp(median([math.log(value) for value in values]))


def inverse(value: Estimate) -> Estimate:
    """Returns the estimate of 1 / x: a latency ratio read as a speed-up."""
    low = 1 / value.high if math.isfinite(value.high) else 0.0
    high = 1 / value.low if value.low > 0 else math.inf
    return Estimate(1 / value.centre, low, high, value.n, value.method)


def percentiles(samples: Sequence[float]) -> tuple[dict[str, float], float]:
    """Returns the percentiles that so many samples can bear (TAIL_N), by name, and the effective
    number of samples. Each sample must be of a single call: an average of several has no tail.
    """
    n = effective_n(samples)
    ordered = sorted(samples)
    by_name = {}
    for name, (q, least) in TAIL_N.items():
        if n >= least:
            by_name[name] = ordered[min(len(ordered) - 1, math.ceil(q * len(ordered)) - 1)]
    return by_name, n


def best_rounds(
    blocks: Blocks, block_cost_s: float, sample_cost_s: float, least: int = 10, most: int = 40
) -> int:
    """Returns the number of samples a block that wastes least time, between `least` and `most`:
    ceil(sqrt(c_block / c_sample * s_within^2 / s_between^2)) (Kalibera and Jones, ISMM 2013).
    """
    logs = [[math.log(value) for value in block] for block in blocks if len(block) > 1]
    if len(logs) < 2:
        return least
    within = fmean(stdev(block) ** 2 for block in logs)
    means = [fmean(block) for block in logs]
    between = stdev(means) ** 2 - within / fmean(len(block) for block in logs)
    if between <= 0:
        return most
    return min(most, max(least, math.ceil(math.sqrt(block_cost_s / sample_cost_s * within / between))))
