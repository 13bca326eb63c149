"""What a pilot says of an experiment that is not yet run: which differences it would find with how
many seeds, and how long that takes.

A pilot's seeds are no experiment's, and it prints spreads, never which arm was ahead.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from statistics import fmean, stdev

import msgspec

from ...perf.stats.arms import correlated
from ...perf.stats.power import POWER, detectable
from .design import Design
from .trials import TrialResult

# Numbers of seeds that are shown.
SEEDS = (3, 5, 8, 12, 20, 30, 50)
# Most that are proposed.
MOST = 500


class PairSpread(msgspec.Struct, frozen=True):
    """How an arm's pairs of a pilot vary."""

    arm: str
    pairs: int
    # Standard deviation of the differences, in the metric's unit.
    deviation: float
    correlation: float | None


def spreads(design: Design, outcomes: Sequence[TrialResult]) -> list[PairSpread]:
    """Returns how each arm's differences to the control vary; fewer than two pairs are left out."""
    values = {(each.arm, each.seed): each.value for each in outcomes}
    seeds = list(dict.fromkeys(each.seed for each in outcomes))
    result = []
    for arm in design.arms:
        sides = [(values[design.control_name, seed], values[arm, seed]) for seed in seeds]
        pairs = [(a, b) for a, b in sides if a is not None and b is not None]
        if len(pairs) > 1:
            deviation = stdev(b - a for a, b in pairs)
            result.append(PairSpread(arm, len(pairs), deviation, correlated(pairs)))
    return result


def detectable_by(design: Design, spread: PairSpread, seeds: int) -> float:
    """Returns the difference that so many seeds would find for an arm."""
    level = design.alpha / len(design.arms)
    return detectable(spread.deviation, spread.pairs, seeds, level, POWER)


def needed(design: Design, known: Sequence[PairSpread], smallest: float) -> int | None:
    """Returns how many seeds find the smallest effect of interest for every arm; None for more than
    500.
    """
    seeds = bisect_left(
        range(2, MOST + 1),
        True,
        key=lambda seeds: all(detectable_by(design, each, seeds) <= smallest for each in known),
    )
    return seeds + 2 if seeds + 2 <= MOST else None


def hours(design: Design, outcomes: Sequence[TrialResult], seeds: int, jobs: int) -> float:
    """Returns how long an experiment of so many seeds takes, as the pilot's trainings did."""
    seconds = [each.seconds for each in outcomes if each.seconds]
    return fmean(seconds) * seeds * len(design.every_arm) / jobs / 3600 if seconds else 0.0
