"""What all cases of two jobs share: one machine is slower than the other, or one hour of it.

Files of other tools have no pace beside them, but many benchmarks: most of them did not change, so
the median of their ratios is what the jobs differ by, and the spread about it is what the same code
differs by once that is taken out. A change of all cases alike looks the same and cannot be told
from a slower machine; that is said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

from ..readers.runs import FEWEST
from ..readers.side import LATENCY, Known
from ..stats.estimates import fmean, median
from ..terms.verdict import Finding

# With fewer cases a median of ratios is that of the one that changed.
FEWEST_CASES = 6
# Of the scale Qn (Rousseeuw and Croux, JASA 88, 1993), which up to half of the cases cannot spoil:
# its factor for normal values, and what it is worth of a standard deviation's degrees of freedom.
QN_TO_SIGMA = 2.2191
EFFICIENCY = 0.82
# Its corrections for 6 to 9 values (Croux and Rousseeuw, Computational Statistics 1, 1992); for
# more n / (n + 1.4) where n is odd and n / (n + 3.8) where it is even.
SMALL = {6: 0.611, 7: 0.857, 8: 0.669, 9: 0.872}
# Standard error of a median over that of a mean.
OF_MEDIAN = math.sqrt(math.pi / 2)
# The same code differs from run to run by this share of what jobs differ by at least, however alike
# rounded figures look.
LEAST_SPREAD = 0.1
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
    logs, runs = [], []
    for base, head in pairs:
        before, after = base.metrics.get(LATENCY), head.metrics.get(LATENCY)
        if before is None or after is None or before.paced or after.paced:
            continue
        logs.append(math.log(after.centre / before.centre))
        runs.append(min(len(before.logs), len(after.logs)) if before.of_runs and after.of_runs else 1)
    if len(logs) < FEWEST_CASES:
        return None
    least = LEAST_SPREAD * between_jobs_sd / math.sqrt(min(runs))
    return Shift(median(logs), max(scale(logs), least), len(logs))


def scale(values: Sequence[float]) -> float:
    """Returns a standard deviation that is not spoilt by less than half of the values: Qn, the k-th
    smallest distance of two of them, k being the number of pairs among half of the values.

    values: 6 or more.
    """
    n = len(values)
    half = n // 2 + 1
    distances = sorted(abs(a - b) for a, b in combinations(values, 2))
    correction = SMALL.get(n, n / (n + (1.4 if n % 2 else 3.8)))
    return QN_TO_SIGMA * correction * distances[half * (half - 1) // 2 - 1]


def levelled(pairs: Sequence[tuple[Known, Known]], runs: tuple[int, int]) -> list[tuple[Known, Known]]:
    """Returns the pairs with what all cases of a run share taken out of its latencies: one run
    meets a slower hour than the next, and that is no case's own spread.

    runs: how many there are of BASE and of HEAD. A side stays as it is whose cases are too few, or
    not in every run.
    """
    sides = [_levelled([pair[side] for pair in pairs], runs[side]) for side in (0, 1)]
    return list(zip(*sides, strict=True))


def _levelled(cases: Sequence[Known], runs: int) -> list[Known]:
    samples = [known.metrics.get(LATENCY) for known in cases]
    logs = [sample.logs for sample in samples if sample is not None and not sample.paced]
    if runs < FEWEST or len(logs) < max(FEWEST_CASES, len(cases)) or any(len(each) != runs for each in logs):
        return list(cases)
    centres = [fmean(each) for each in logs]
    shared = [
        median([each[run] - centre for each, centre in zip(logs, centres, strict=True)])
        for run in range(runs)
    ]
    return [
        replace(known, metrics={**known.metrics, LATENCY: replace(known.metrics[LATENCY], logs=level)})
        for known, level in zip(
            cases,
            [tuple(log - common for log, common in zip(each, shared, strict=True)) for each in logs],
            strict=True,
        )
    ]


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
