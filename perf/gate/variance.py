"""Where the spread of a race comes from, and what the gate could detect with it on this machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import stdev
from typing import NamedTuple

from ..stats import compare, estimates
from ..terms.result import Result


class Spread(NamedTuple):
    """Standard deviations of the log of a latency: from round to round within a worker, from worker
    to worker (blocks), and of a block's ratio to the baseline.

    correlation: lag-1 autocorrelation of the rounds. switches: involuntary, a sample. steal: share
    of the machine's time. faults: a call. block_s: what a block took of one worker of the case; 0
    where the file does not tell.
    """

    rounds: float
    blocks: float
    ratio: float | None
    correlation: float
    switches: float
    migrations: float
    faults: float
    steal: float
    block_s: float = 0.0


def spread(one: Result, baseline: Result | None) -> Spread:
    """Raises ValueError with fewer than 3 blocks of 3 rounds."""
    blocks = [
        [math.log(value) for value in block] for block in one.metrics["latency"].values if len(block) >= 3
    ]
    seen = one.disturbance
    if len(blocks) < 3 or seen is None:
        raise ValueError(f"{one.case.id}: {len(blocks)} blocks, 3 are needed")
    within = estimates.fmean([stdev(block) ** 2 for block in blocks])
    # The variance of a median of n normal samples is pi / 2 times that of their mean.
    of_medians = math.pi / 2 * within / estimates.fmean([len(block) for block in blocks])
    between = stdev([estimates.median(block) for block in blocks]) ** 2 - of_medians
    ratio = None
    if baseline is not None and baseline is not one and "latency" in baseline.metrics:
        ratio = stdev(
            [
                math.log(estimates.middle(block))
                for block in estimates.paired(
                    baseline.metrics["latency"].values, one.metrics["latency"].values
                )
            ]
        )
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
    )


def affordable(every: Sequence[Spread], budget_s: float) -> int:
    """The last look that hotlap ab reaches with all these cases in the budget; 0 if none, or if a
    file does not tell what blocks take.
    """
    block_s = 2 * sum(one.block_s for one in every)
    if not all(one.block_s for one in every):
        return 0
    return max((look for look in compare.LOOKS if look * block_s <= budget_s), default=0)


def detectable(
    ratio_sd: float, blocks: int, tolerance: float, cases: int = 1, alpha: float = 0.05
) -> float | None:
    """The worsening that hotlap ab finds with 90 % power after so many blocks, as the first of so
    many cases (shared/MEASURING.md b 7); None: cannot decide then.
    """
    each, looks = compare.level(compare.LATENCY_SHARE * alpha / cases)
    if blocks not in looks:
        return None
    quantiles = estimates.student_t(1 - each, blocks - 1) + estimates.student_t(compare.POWER, blocks - 1)
    return math.expm1(math.log1p(tolerance) + quantiles * ratio_sd / math.sqrt(blocks))


def advice(every: Sequence[Spread], priorities: Sequence[str]) -> list[str]:
    """What of it can be changed, most helpful first."""
    found = []
    if any(said.startswith("normal") for said in priorities):
        found.append(
            f"priority {next(said for said in priorities if said.startswith('normal'))}: beside a busy"
            " neighbour this is worth more than anything else"
        )
    if max(one.steal for one in every) >= 0.005:
        found.append(
            f"steal up to {max(one.steal for one in every):.1%}: the host takes the machine away; take a"
            " dedicated one, or more blocks"
        )
    if max(one.faults for one in every) >= 100:
        found.append(
            "page faults in every call: the allocator gives memory back; MALLOC_MMAP_MAX_=0"
            " MALLOC_TRIM_THRESHOLD_=4000000000"
        )
    if max(one.migrations for one in every) >= 0.1:
        found.append(
            "threads change cores within samples: bind them, as every entrant but the library defaults has it"
        )
    if max(one.switches for one in every) >= 1:
        found.append(
            "more than one involuntary switch a sample: more runnable threads than cores; end what runs"
            " beside"
        )
    ratios = [one.ratio for one in every if one.ratio is not None]
    if ratios and max(one.blocks for one in every) > 3 * estimates.median(ratios):
        found.append(
            "workers differ much more than their ratios do: compare side by side (hotlap ab), never two files"
            " of different hours"
        )
    return found or ["nothing that stands out"]
