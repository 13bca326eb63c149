"""What all cases of two jobs share: one machine is slower than the other, or one hour of it.

Files of other tools have no pace beside them, but many benchmarks: most of them did not change, so
the median of their ratios is what the jobs differ by, and the spread about it is what the same code
differs by once that is taken out. A change of all cases alike looks the same and cannot be told
from a slower machine; that is said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ..readers.side import LATENCY, Known
from ..stats.estimates import median
from ..terms.verdict import Finding

# With fewer cases a median of ratios is that of the one that changed.
FEWEST_CASES = 6
# A normal distribution's standard deviation over its median absolute deviation from the median.
MAD_TO_SIGMA = 1.4826
# What a median absolute deviation, as an estimate of a spread, is worth of a standard deviation's
# degrees of freedom (Rousseeuw and Croux, JASA 88, 1993: its efficiency is 37 %).
EFFICIENCY = 0.37
# Standard error of a median over that of a mean.
OF_MEDIAN = math.sqrt(math.pi / 2)
# A shift of so many standard deviations of what jobs differ by is not believed to be the machine.
BELIEVED = 2.0


class Shift(NamedTuple):
    """What the latencies of all cases share, on the log scale; above 0 is slower in HEAD."""

    log: float
    # Standard deviation of the cases about it.
    spread: float
    # How many cases there are.
    cases: int

    @property
    def job_sd(self) -> float:
        """By how much the same code still differs between the jobs once the shift is taken out:
        what the error of a ratio has for each of its two sides.
        """
        of_shift = OF_MEDIAN * self.spread / math.sqrt(self.cases)
        return math.hypot(self.spread, of_shift) / math.sqrt(2)

    @property
    def freedom(self) -> float:
        """Degrees of freedom with which the spread is known."""
        return max(1.0, EFFICIENCY * (self.cases - 1))

    @property
    def text(self) -> str:
        return (
            f"all {self.cases} cases share a shift of {math.expm1(self.log):+.1%}, which is taken out: of the"
            " machine, or of a change to all alike, which two jobs cannot tell apart (hotlap ab can)"
        )


def common(pairs: Sequence[tuple[Known, Known]], between_jobs_sd: float) -> Shift | None:
    """Returns what the cases of two jobs share; None where there are too few, where a pace ran
    beside them, or where the policy says that jobs do not differ.
    """
    if not between_jobs_sd:
        return None
    logs = []
    for base, head in pairs:
        before, after = base.metrics.get(LATENCY), head.metrics.get(LATENCY)
        if before is None or after is None or before.paced or after.paced:
            continue
        logs.append(math.log(after.centre / before.centre))
    if len(logs) < FEWEST_CASES:
        return None
    centre = median(logs)
    return Shift(centre, MAD_TO_SIGMA * median([abs(log - centre) for log in logs]), len(logs))


def beyond_belief(shift: Shift, between_jobs_sd: float) -> list[Finding]:
    """Returns a finding that could not be told where HEAD is slower in all cases by more than jobs
    differ; empty otherwise.
    """
    most = BELIEVED * math.sqrt(2) * between_jobs_sd
    if shift.log <= most:
        return []
    evidence = (
        f"jobs are taken to differ by up to {math.expm1(most):.0%} (between_jobs_sd = {between_jobs_sd:g})",
        "a change to all cases alike, or another machine: measure both in one job (hotlap ab)",
    )
    return [
        Finding(
            f"all {shift.cases} cases",
            LATENCY,
            "inconclusive",
            ratio=math.exp(shift.log),
            evidence=evidence,
        )
    ]
