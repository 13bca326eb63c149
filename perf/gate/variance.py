"""Where the spread of a race comes from, and what the gate could detect with it on this machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import stdev
from typing import NamedTuple

from ..lookup import cases
from ..measure.prepare import own_work
from ..stats import compare, estimates
from ..terms.result import Result


class Spread(NamedTuple):
    """Where the spread of one case's latency comes from, and what disturbed it."""

    # Standard deviation of the log of a latency, from round to round within a worker.
    rounds: float
    # The same from worker to worker.
    blocks: float
    # The same of a block's ratio to the baseline, or of a case that ran alone to its own block
    # before; None for the baseline of others.
    ratio: float | None
    # Lag-1 autocorrelation of the rounds.
    correlation: float
    # Involuntary context switches, a sample.
    switches: float
    # Changes of core, a sample.
    migrations: float
    # Page faults, a call.
    faults: float
    # Share of the machine's time that the host took.
    steal: float
    # What a block took of one worker of the case, s; 0 where the file does not tell.
    block_s: float = 0.0
    # Whether nothing ran beside the case that it could be compared with.
    alone: bool = False


class RunNoise(NamedTuple):
    """What a run says of its noise."""

    # Case id -> its spread.
    spreads: dict[str, Spread]
    # A line for each case with too few blocks.
    skipped: list[str]
    # Of the workers of each case, as the scheduler granted it.
    priorities: list[str]

    @property
    def raced(self) -> list[Spread]:
        """Those with a ratio to a baseline, or to themselves."""
        return [spread for spread in self.spreads.values() if spread.ratio is not None]


def of_run(results: Sequence[Result]) -> RunNoise:
    """Returns the spread of each case that was timed; the harness's own work is none."""
    noise = RunNoise({}, [], [])
    timed = [result for result in results if "latency" in result.metrics and not own_work(result.case)]
    for result in timed:
        try:
            noise.spreads[result.case.id] = spread(result, beside(result, timed))
        except ValueError as error:
            noise.skipped.append(str(error))
        else:
            noise.priorities.append(result.disturbance.priority if result.disturbance else "")
    return noise


def beside(result: Result, timed: Sequence[Result]) -> Result | None:
    """Returns the baseline that ran beside a result, itself where others ran beside it; None where
    there is nothing to compare it with.
    """
    race = [other for other in timed if other.race_id == result.race_id]
    baseline = baseline_of(result, race)
    return None if baseline is result and len(race) == 1 else baseline


def baseline_of(result: Result, race: Sequence[Result]) -> Result | None:
    """Returns the baseline with the harness's own settings, if it took part in the race."""
    for other in race:
        if other.case.backend == cases.baseline_of(result.case.workload) and not other.case.options:
            return other
    return None


def spread(result: Result, baseline: Result | None) -> Spread:
    """Returns where the spread of a result's latency comes from.

    baseline: as `beside` gives it. Raises ValueError with fewer than 3 blocks of 3 rounds.
    """
    latency = result.metrics["latency"].values
    blocks = [[math.log(value) for value in block] for block in latency if len(block) >= 3]
    seen = result.disturbance
    if len(blocks) < 3 or seen is None:
        raise ValueError(f"{result.case.id}: {len(blocks)} blocks, 3 are needed")
    within = estimates.fmean([stdev(block) ** 2 for block in blocks])
    # The variance of a median of n normal samples is pi / 2 times that of their mean.
    of_medians = math.pi / 2 * within / estimates.fmean([len(block) for block in blocks])
    between = stdev([estimates.median(block) for block in blocks]) ** 2 - of_medians
    ratio = None
    if baseline is None:
        ratio = from_block_to_block(blocks)
    elif baseline is not result:
        pairs = estimates.paired(baseline.metrics["latency"].values, latency)
        ratio = stdev([math.log(estimates.middle(block)) for block in pairs])
    return Spread(
        rounds=math.sqrt(within),
        blocks=math.sqrt(max(0.0, between)),
        ratio=ratio,
        correlation=estimates.fmean([estimates.autocorrelation(block) for block in blocks]),
        switches=seen.switches_per_sample,
        migrations=estimates.fmean([value for block in seen.migrations for value in block]),
        faults=seen.faults_per_call,
        steal=estimates.fmean(seen.steal),
        block_s=estimates.fmean(seen.spent_s) if seen.spent_s else 0.0,
        alone=baseline is None,
    )


def from_block_to_block(blocks: Sequence[Sequence[float]]) -> float:
    """Returns the standard deviation of a block's log ratio to the block before, whose worker is
    another: successive differences (von Neumann and others, Annals of Mathematical Statistics 12,
    1941), in which a slow drift is not.

    The sides of hotlap ab are two workers as well. They take turns within a block, so their ratio
    is also free of what lasts longer than a turn, and spreads as much as this or less.

    blocks: log latencies.
    """
    steps = [b - a for a, b in pairwise(map(estimates.median, blocks))]
    return math.sqrt(estimates.fmean([step**2 for step in steps]))


def affordable(every: Sequence[Spread], budget_s: float) -> int:
    """Returns the last look, in blocks, that hotlap ab reaches with all these cases in the budget;
    0 if none, or if a file does not tell what blocks take.
    """
    block_s = 2 * sum(spread.block_s for spread in every)
    if not all(spread.block_s for spread in every):
        return 0
    return max((look for look in compare.LOOKS if look * block_s <= budget_s), default=0)


def detectable(
    ratio_sd: float, blocks: int, tolerance: float, cases: int = 1, alpha: float = 0.05
) -> float | None:
    """Returns the worsening, as a share, that hotlap ab finds with 90 % power after so many blocks,
    as the first of so many cases (docs/statistics.md); None where it cannot decide then.

    ratio_sd: standard deviation of a block's log ratio.
    """
    each, looks = compare.level(compare.LATENCY_SHARE * alpha / cases)
    if blocks not in looks:
        return None
    quantiles = estimates.student_t(1 - each, blocks - 1) + estimates.student_t(compare.POWER, blocks - 1)
    return math.expm1(math.log1p(tolerance) + quantiles * ratio_sd / math.sqrt(blocks))


def advice(every: Sequence[Spread], priorities: Sequence[str]) -> list[str]:
    """Returns what of the spread can be changed, most helpful first."""
    lines = []
    if normal := next((priority for priority in priorities if priority.startswith("normal")), ""):
        lines.append(f"priority {normal}: beside a busy neighbour this is worth more than anything else")
    steal = max(spread.steal for spread in every)
    if steal >= 0.005:
        lines.append(
            f"steal up to {steal:.1%}: the host takes the machine away; take a dedicated one, or more blocks"
        )
    if max(spread.faults for spread in every) >= 100:
        lines.append(
            "page faults in every call: the allocator gives memory back; MALLOC_MMAP_MAX_=0"
            " MALLOC_TRIM_THRESHOLD_=4000000000"
        )
    if max(spread.migrations for spread in every) >= 0.1:
        lines.append(
            "threads change cores within samples: bind them, as every entrant but the library defaults has it"
        )
    if max(spread.switches for spread in every) >= 1:
        lines.append(
            "more than one involuntary switch a sample: more runnable threads than cores; end what runs"
            " beside"
        )
    ratios = [spread.ratio for spread in every if spread.ratio is not None]
    if ratios and max(spread.blocks for spread in every) > 3 * estimates.median(ratios):
        lines.append(
            "workers differ much more than their ratios do: compare side by side (hotlap ab), never two files"
            " of different hours"
        )
    return lines or ["nothing that stands out"]
