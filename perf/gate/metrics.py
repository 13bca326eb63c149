"""What is measured has noise: one-sided tests at a stated error rate, all metrics of a verdict
together.

Two files share no block, so a metric is compared as two samples of block values: latencies as
ratios to the pace that ran beside them, or, without a pace, less what all cases share (shift.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import stdev
from typing import NamedTuple

from ..readers.runs import FEWEST
from ..readers.samples import CERTAIN
from ..readers.side import FIGURE, LATENCY, Known, Sample
from ..stats import compare, estimates
from ..stats.compare import Judgement
from ..terms.units import scaled
from ..terms.verdict import Finding
from .policy import DEVIATION, MEMORY_SLACK_BYTES, OUTPUTS, TASK, Policy, Rules
from .shift import Shift, beyond_belief, common

# How to tell what two files of unlike jobs cannot.
REMEDY = (
    "to tell more: three runs or more of each side, in turns, a folder each (hotlap gate BASE/ HEAD/), or"
    " both sides in one job (hotlap ab)"
)
# Why a metric is not judged that no side has: no finding, since nothing was lost.
NEITHER = "neither side has it"
# What a slower or faster hour of the machine changes, and a pace cancels.
TIMES = (LATENCY, "call_latency", "throughput", "cold_start", "flop_rate", "energy", FIGURE)


class Test(NamedTuple):
    """One metric of one case, ready to be judged at any level."""

    base: Known
    head: Known
    metric: str
    # Worsening that is let pass, as a share.
    tolerance: float
    # By how much the same code differs between jobs: a standard deviation of the log; 0 where that
    # does not matter.
    job_sd: float
    # Whether the blocks of both sides are those of one race.
    paired: bool = False
    # What all cases share, which is taken out.
    shift: Shift | None = None

    def at(self, worse_level: float, fine_level: float) -> Judgement:
        """Judges it at the level of a regression and that of a pass."""
        a, b = self.base.metrics[self.metric], self.head.metrics[self.metric]
        sign = 1.0 if a.better == "lower" else -1.0
        shared, freedom = (self.shift.log, self.shift.freedom) if self.shift else (0.0, CERTAIN)
        if a.error is not None and b.error is not None:
            parts = [a.error**2, b.error**2, 2 * self.job_sd**2]
            error, freedom = math.sqrt(sum(parts)), satterthwaite(parts, [a.freedom, b.freedom, freedom])
            effect = sign * math.log(b.centre / a.centre) - shared
            return compare.from_error(effect, error, freedom, 1, self.tolerance, worse_level, fine_level)
        if self.paired and self.metric == LATENCY:
            ratios = [math.log(estimates.middle(block)) for block in estimates.paired(a.blocks, b.blocks)]
            return compare.lockstep(ratios, self.tolerance, worse_level, fine_level)
        job_sd = self.job_sd
        if a.of_runs and b.of_runs and not self.shift:
            # What the runs differ by, jobs are seen to differ by, and need not be taken to.
            seen = estimates.fmean([stdev(sample.logs) ** 2 for sample in (a, b)])
            job_sd = math.sqrt(max(0.0, job_sd**2 - seen))
        before = [sign * log for log in a.logs]
        after = [sign * log - shared for log in b.logs]
        return compare.apart(before, after, self.tolerance, worse_level, fine_level, job_sd, freedom)

    def finding(self, worse_level: float, fine_level: float) -> Finding:
        """Returns it as a finding, judged at these levels."""
        judgement = self.at(worse_level, fine_level)
        a, b = self.base.metrics[self.metric], self.head.metrics[self.metric]
        unsteady = [
            name
            for name, side in (("BASE", self.base), ("HEAD", self.head))
            if not side.steady and self.metric in TIMES
        ]
        evidence = [f"{name} was not steady" for name in unsteady]
        if a.paced:
            evidence.append(beside_the_pace(a, b, judgement.ratio))
        elif self.paired and self.metric == LATENCY:
            evidence.append(f"{int(judgement.n)} blocks that both sides share")
        elif self.shift:
            evidence.append(f"HEAD took {scaled(b.centre, b.unit)}, with the shift that all cases share")
        evidence += could_pass(judgement, self.tolerance)
        low, high, ratio = (
            (judgement.low, judgement.high, judgement.ratio)
            if a.better == "lower"
            else (1 / judgement.high, 1 / judgement.low, 1 / judgement.ratio)
        )
        return Finding(
            case=self.base.case,
            metric=self.metric,
            verdict="inconclusive" if unsteady else judgement.verdict,
            base=a.centre,
            # As it would be on BASE's machine, so that the two agree with their ratio.
            head=a.centre * ratio if a.paced or self.shift else b.centre,
            ratio=ratio,
            low=low,
            high=high,
            tolerance=self.tolerance,
            detectable=judgement.detectable,
            better=a.better,
            unit=a.unit,
            evidence=tuple(evidence),
            place=self.head.place,
        )


def satterthwaite(parts: Sequence[float], freedom: Sequence[float]) -> float:
    """Returns the degrees of freedom of a sum of variances (Satterthwaite, Biometrics Bulletin 2,
    1946).

    parts: the variances. freedom: that of each.
    """
    below = sum(part**2 / each for part, each in zip(parts, freedom, strict=True))
    return min(sum(parts) ** 2 / below, CERTAIN) if below > 0 else CERTAIN


def beside_the_pace(base: Sample, head: Sample, ratio: float) -> str:
    """Returns what HEAD took on its own machine, and how fast that one was."""
    speed = head.centre / (base.centre * ratio)
    how = f"{abs(speed - 1):.0%} {'slower' if speed > 1 else 'faster'}"
    return f"as ratios to the pace: HEAD took {scaled(head.centre, head.unit)} on a machine that was {how}"


def could_pass(judgement: Judgement, tolerance: float) -> list[str]:
    """Returns from which tolerance on the blocks would pass; empty where they pass at this one, and
    something else stands in the way.
    """
    if judgement.verdict != "inconclusive" or judgement.least_tolerance <= tolerance:
        return []
    return [f"could pass from a tolerance of {judgement.least_tolerance:.1%} on"]


def metrics(
    pairs: Sequence[tuple[Known, Known]],
    policy: Policy,
    alpha: float,
    without: tuple[str, ...] = (),
    one_job: bool = False,
    paired: bool = False,
) -> tuple[list[Finding], list[str]]:
    """Judges all metrics together, since they share the chance of any false alarm (Holm).

    pairs: of BASE and HEAD. one_job: whether both ran side by side, or in turns. Returns findings,
    and notes on what could not be tested and on what the tests took for granted.
    """
    tests, findings, reasons = [], [], dict[str, None]()
    shift = None if one_job else common(pairs, policy.between_jobs_sd)
    for base, head in pairs:
        rules = policy.of(base.case)
        for name, tolerance in tolerances(rules, base, head).items():
            if name in (DEVIATION, TASK, OUTPUTS, *without):
                continue
            why = untestable(base.metrics.get(name), head.metrics.get(name))
            if not why:
                a = base.metrics[name]
                extra = MEMORY_SLACK_BYTES / a.centre if name == "memory" else 0.0
                apart = name in TIMES and not a.paced and not one_job
                taken_out = shift if apart and name == LATENCY else None
                job_sd = (taken_out.job_sd if taken_out else policy.between_jobs_sd) if apart else 0.0
                tests.append(Test(base, head, name, tolerance + extra, job_sd, paired, taken_out))
            elif name in rules.asked or (name in (LATENCY, *alone(base)) and why != NEITHER):
                findings.append(
                    Finding(
                        base.case,
                        name,
                        "inconclusive",
                        tolerance=tolerance,
                        evidence=(why,),
                        place=head.place,
                    )
                )
            elif why != NEITHER:
                reasons[f"{name} is not judged: {why}"] = None
    levels = [alpha / (rank + 1) for rank in range(len(tests))]
    each = compare.holm([test.at(alpha, alpha).p_worse for test in tests], levels)
    findings += [test.finding(level, policy.alpha) for test, level in zip(tests, each, strict=True)]
    if shift is not None:
        reasons[shift.text] = None
        findings += beyond_belief(shift, policy.between_jobs_sd)
    elif any(test.job_sd for test in tests):
        reasons[f"no pace: the same code is taken to differ by {policy.between_jobs_sd:.0%} between jobs"] = (
            None
        )
    if any(test.job_sd for test in tests) and any(each.verdict == "inconclusive" for each in findings):
        reasons[REMEDY] = None
    return findings, list(reasons)


def tolerances(rules: Rules, base: Known, head: Known) -> dict[str, float]:
    """Returns what is judged of a case, and how much worse it may be: what the policy says, and of
    a case without a latency all that it has, by the latency's tolerance.
    """
    if LATENCY in base.metrics or LATENCY in head.metrics:
        return rules.tolerance
    return {**dict.fromkeys(base.metrics, rules.tolerance[LATENCY]), **rules.tolerance}


def alone(known: Known) -> list[str]:
    """Returns the metrics of a case without a latency: without them nothing is told of it."""
    return [] if LATENCY in known.metrics else [*known.metrics]


def untestable(base: Sample | None, head: Sample | None) -> str:
    """Returns why two samples cannot be tested; empty if they can."""
    if base is None or head is None:
        return NEITHER if base is head else f"only {'BASE' if head is None else 'HEAD'} has it"
    if (base.unit, base.paced) != (head.unit, head.paced):
        return "the two sides have it in different units, or only one has a pace"
    if base.error is not None and head.error is not None:
        return ""
    fewest = min(len(base.logs), len(head.logs))
    return (
        ""
        if fewest >= FEWEST
        else f"{fewest or 'no'} block{'s' if fewest != 1 else ''} a side, {FEWEST} are needed for an interval"
    )
