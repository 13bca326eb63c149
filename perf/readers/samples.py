"""What the times of another tool say of one metric: of one process, of many, or only their spread.

One process says nothing of how processes or jobs differ; who judges it adds that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import stdev

from ..stats import estimates
from ..terms.case import Better
from ..terms.result import LEAST, MOST
from .side import Sample

# Degrees of freedom of an error that is known, not estimated.
CERTAIN = 1e9


def of_process(values: Sequence[float], unit: str = "s", better: Better = "lower") -> Sample:
    """Returns the samples of one process: over 16 batch means, or as independent ones where there
    are fewer than 32. One value alone has no error of its own.

    Raises ValueError.
    """
    check(values)
    centre = estimates.median(values)
    if len(values) >= 2 * estimates.BATCHES:
        estimate, freedom = estimates.interval_over_batches(values), estimates.BATCHES - 1
        error = estimate.half_width / estimates.student_t(0.975, freedom)
        return Sample(unit, better, centre, error=error, freedom=freedom)
    if len(values) < 2:
        return single(centre, unit, better)
    error = stdev(map(math.log, values)) / math.sqrt(len(values))
    return Sample(unit, better, centre, error=error, freedom=len(values) - 1)


def of_processes(values: Sequence[Sequence[float]], unit: str = "s", better: Better = "lower") -> Sample:
    """Returns the samples of fresh processes, each of which is a block. Raises ValueError."""
    if not values:
        raise ValueError("has no values")
    for block in values:
        check(block)
    logs = [math.log(estimates.middle(block)) for block in values]
    return Sample(unit, better, math.exp(estimates.fmean(logs)), tuple(logs), tuple(map(tuple, values)))


def of_spread(
    centre: float, deviation: float, count: int, unit: str = "s", better: Better = "lower"
) -> Sample:
    """Returns what is left of `count` samples of which a file keeps the standard deviation alone:
    as if they were at most 16, since how they depend on one another is not known.

    Raises ValueError.
    """
    check([centre])
    if not 0 <= deviation < MOST:
        raise ValueError(f"has a standard deviation of {deviation:g}")
    effective = min(count, estimates.BATCHES)
    if effective < 2:
        return Sample(unit, better, centre)
    return of_error(centre, deviation / math.sqrt(effective), effective - 1, unit, better)


def of_error(
    centre: float, error: float, freedom: float, unit: str = "s", better: Better = "lower"
) -> Sample:
    """Returns a figure whose standard error, in the same unit, its own tool has worked out.

    Raises ValueError.
    """
    check([centre])
    if not 0 <= error < MOST:
        raise ValueError(f"has a standard error of {error:g}")
    return Sample(unit, better, centre, error=error / centre, freedom=freedom)


def single(value: float, unit: str = "s", better: Better = "lower") -> Sample:
    """Returns a figure that stands for many calls and of which no spread is known. Raises
    ValueError.
    """
    check([value])
    return Sample(unit, better, value, error=0.0, freedom=CERTAIN)


def check(values: Sequence[float]) -> None:
    """Raises ValueError where a value is no measurement."""
    if not values:
        raise ValueError("has no values")
    if not all(LEAST < value < MOST for value in values):
        raise ValueError("holds a value that is not above 0, or no measurement")
