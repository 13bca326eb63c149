"""Two sides and a policy give one verdict: who is there, what differs in structure (exact, no
noise), what is measured (at a stated error rate).

Two files share no block, so a metric is compared as two samples of block values; latencies as
ratios to the pace that ran beside them.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from ..stats import compare, estimates
from ..stats.compare import Judgement
from ..terms.counters import COUNTERS
from ..terms.units import scaled
from ..terms.verdict import Finding, Verdict, worst
from .policy import (
    DEVIATION,
    MEMORY_SLACK_BYTES,
    MOST_TOLERANCE,
    OUTPUTS,
    TASK,
    Policy,
    Rules,
    accepting,
    allowance,
    percent,
)
from .sides import Known, Sample, Side, differs

# With fewer values a side there is no interval worth the name.
FEWEST = 3
# The reason of a verdict without findings.
NOTHING = "nothing could be judged"
# Why a metric is not judged that no side has: no finding, since nothing was lost.
NEITHER = "neither side has it"
# Why a counter that grew is no regression.
NO_HARM = "reported only: the case is faster"
# What a slower or faster hour of the machine changes, and a pace cancels.
TIMES = ("latency", "call_latency", "throughput", "cold_start", "flop_rate", "energy")


def judge(
    base: Side,
    head: Side,
    policy: Policy,
    alpha: float | None = None,
    without: tuple[str, ...] = (),
    one_job: bool = False,
) -> Verdict:
    """Judges HEAD against BASE by a policy.

    alpha: instead of the policy's. without: metrics that the caller judges itself. one_job: whether
    both sides ran in the same job, side by side. Two files of one race of `hotlap ab` did, and
    share their blocks.
    """
    paired = bool(base.raced) and base.raced == head.raced and base.path != head.path
    one_job = one_job or paired
    both = [
        (mine, head.cases[name])
        for name, mine in base.cases.items()
        if name in head.cases and not policy.of(name).ignored
    ]
    findings, reasons = presence(base, head, policy)
    comparable, borders, notes = environments(both) if not one_job else (both, [], [])
    findings, reasons = findings + borders, [*reasons, *notes, *policy.idle([*base.cases, *head.cases])]
    measured = [(mine, theirs) for mine, theirs in comparable if mine.good and theirs.good]
    for mine, theirs in measured:
        findings += structure(mine, theirs, policy.of(mine.case))
    for theirs in head.cases.values():
        if not policy.of(theirs.case).ignored:
            findings += limits(theirs, policy.of(theirs.case).limits)
    moved, unjudged = metrics(measured, policy, alpha or policy.alpha, without, one_job, paired)
    return conclude([*findings, *causes(moved, findings)], [*reasons, *unjudged], policy)


def presence(base: Side, head: Side, policy: Policy) -> tuple[list[Finding], list[str]]:
    """Returns findings and notes on cases that came, went or changed their name, and on those that
    lost what they had.
    """
    findings, reasons = [], []
    new = [name for name in head.cases if name not in base.cases]
    for name, mine in base.cases.items():
        if policy.of(name).ignored:
            continue
        theirs = head.cases.get(name)
        if theirs is None:
            near = difflib.get_close_matches(name, new, n=1, cutoff=0.75)
            evidence = (
                "missing in HEAD",
                *(f"renamed to {near_name}? then measure BASE under the new name" for near_name in near),
            )
            findings.append(
                Finding(
                    name, "presence", policy.missing, kind="presence", evidence=evidence, place=mine.place
                )
            )
        elif mine.good and not theirs.good:
            findings.append(
                Finding(
                    name,
                    "presence",
                    "regression",
                    kind="presence",
                    evidence=(f"was {mine.status}, is {theirs.status}: {theirs.reason}",),
                    place=theirs.place,
                )
            )
        elif mine.status == theirs.status == "failed":
            evidence = (
                f"failed on both sides: {theirs.reason}",
                "mend it, or let the policy ignore the case",
            )
            findings.append(
                Finding(
                    name, "presence", "inconclusive", kind="presence", evidence=evidence, place=theirs.place
                )
            )
        elif not mine.good:
            reasons.append(
                f"{name}: was {mine.status} ({mine.reason}), is {theirs.status}"
                + ("" if theirs.good else f" ({theirs.reason})")
            )
    return findings, reasons + [f"new: {name}" for name in new]


def environments(
    both: Iterable[tuple[Known, Known]],
) -> tuple[list[tuple[Known, Known]], list[Finding], list[str]]:
    """Returns the pairs that may be compared, a finding for each that may not, and notes on what
    else differs.
    """
    comparable, findings, notes = [], [], dict[str, None]()
    for mine, theirs in both:
        differences = differs(mine, theirs)
        evidence = tuple(f"{name}: {a} -> {b}" for name, (a, b) in differences.blocking.items())
        if evidence:
            findings.append(
                Finding(
                    mine.case,
                    "environment",
                    "not_comparable",
                    kind="presence",
                    evidence=evidence,
                    place=theirs.place,
                )
            )
            notes |= dict.fromkeys(
                f"not comparable, {text}; measure both sides in one environment, or use hotlap ab"
                for text in evidence
            )
        else:
            comparable.append((mine, theirs))
        notes |= dict.fromkeys(f"noted, {name}: {a} -> {b}" for name, (a, b) in differences.noted.items())
    return comparable, findings, list(notes)


def structure(base: Known, head: Known, rules: Rules) -> list[Finding]:
    """Judges counters, and how far the outputs and the task metric are from the reference: exact
    integers and repeatable figures.
    """
    findings = []
    for name in sorted(base.counters.keys() & head.counters.keys() & COUNTERS.keys()):
        a, b = base.counters[name], head.counters[name]
        growth = b - a if COUNTERS[name].better == "lower" else a - b
        allowed = allowance(rules.slack.get(name, 0), a)
        unit, harmed = COUNTERS[name].unit, growth > allowed
        evidence = (accepting("slack", name, growth),) if harmed else ("a gain",) if growth < 0 else ()
        findings.append(
            Finding(
                base.case,
                name,
                "regression" if harmed else "pass",
                a,
                b,
                better=COUNTERS[name].better,
                unit=unit if unit == "B" else "",
                kind="counter",
                evidence=evidence,
                place=head.place,
            )
        )
    for name in sorted(base.counters.keys() ^ head.counters.keys()):
        side = "BASE" if name in base.counters else "HEAD"
        findings.append(
            Finding(
                base.case,
                name,
                "inconclusive",
                kind="counter",
                evidence=(f"counted in {side} only",),
                place=head.place,
            )
        )
    if DEVIATION in rules.tolerance:
        findings.append(
            exact(base, head, DEVIATION, base.deviation, head.deviation, "lower", rules.tolerance[DEVIATION])
        )
    return [*findings, *task(base, head, rules.tolerance.get(TASK))]


def task(base: Known, head: Known, tolerance: float | None) -> list[Finding]:
    """Judges the task metric: by the policy's tolerance, a share of BASE's, or without one by how
    much HEAD's workload says that it may lose. Empty where neither side has one.
    """
    before, after = base.task, head.task
    if before is None and after is None and tolerance is None:
        return []
    if before is None or after is None or (before.metric, before.better) != (after.metric, after.better):
        if before is None and tolerance is None:
            return []  # HEAD has one more
        return [exact(base, head, TASK, None, None, "higher", tolerance)]
    a, b = before.value, after.value
    if tolerance is not None:
        return [exact(base, head, before.metric, a, b, before.better, tolerance)]
    loss = b - a if before.better == "lower" else a - b
    fine = loss <= after.budget
    spoken = f"{before.metric} may be worse by {after.budget:g}, as its workload says"
    share = abs(loss / a) if a else MOST_TOLERANCE
    evidence = (
        (spoken,) if fine or math.isnan(share) else (spoken, accepting("tolerance", TASK, percent(share)))
    )
    return [
        Finding(
            base.case,
            before.metric,
            "pass" if fine else "regression",
            a,
            b,
            better=before.better,
            kind="counter",
            evidence=evidence,
            place=head.place,
        )
    ]


def exact(
    base: Known,
    head: Known,
    name: str,
    a: float | None,
    b: float | None,
    better: str,
    tolerance: float | None,
) -> Finding:
    """Judges a figure that the same code repeats, so that it needs no test.

    a, b: of BASE and HEAD, None where it has none. tolerance: a share of BASE's.
    """
    if a is None or b is None:
        return Finding(
            base.case,
            name,
            "inconclusive",
            a,
            b,
            tolerance=tolerance,
            kind="counter",
            evidence=("the two sides do not both have it",),
            place=head.place,
        )
    fine = (b - a if better == "lower" else a - b) <= (tolerance or 0.0) * abs(a)
    return Finding(
        base.case,
        name,
        "pass" if fine else "regression",
        a,
        b,
        tolerance=tolerance,
        kind="counter",
        place=head.place,
    )


def limits(head: Known, absolute: dict[str, float]) -> list[Finding]:
    """Judges what HEAD must keep whatever BASE did. absolute: metric -> limit, in its unit."""
    findings = []
    for name, limit in absolute.items():
        value, higher, unit = None, name == "throughput", ""
        if name == TASK and head.task is not None:
            value, higher = head.task.value, head.task.better == "higher"
        elif name == DEVIATION:
            value = head.deviation
        elif name in head.metrics:
            value = head.metrics[name].centre
            higher = head.metrics[name].better == "higher"
            unit = head.metrics[name].unit
        evidence = (f"{'least' if higher else 'most'}: {limit:g}",)
        if value is None or not head.good:
            why = "HEAD has no such value" if head.good else f"HEAD is {head.status}: {head.reason}"
            findings.append(
                Finding(
                    head.case, name, "inconclusive", kind="limit", evidence=(*evidence, why), place=head.place
                )
            )
        else:
            fine = value >= limit if higher else value <= limit
            findings.append(
                Finding(
                    head.case,
                    name,
                    "pass" if fine else "regression",
                    limit,
                    value,
                    unit=unit,
                    kind="limit",
                    evidence=evidence,
                    place=head.place,
                )
            )
    return findings


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

    def at(self, worse_level: float, fine_level: float) -> Judgement:
        """Judges it at the level of a regression and that of a pass."""
        a, b = self.base.metrics[self.metric], self.head.metrics[self.metric]
        sign = 1.0 if a.better == "lower" else -1.0
        if a.error is not None and b.error is not None:
            error = math.sqrt(a.error**2 + b.error**2 + 2 * self.job_sd**2)
            return compare.from_error(
                sign * math.log(b.centre / a.centre),
                error,
                min(a.freedom, b.freedom),
                1,
                self.tolerance,
                worse_level,
                fine_level,
            )
        if self.paired and self.metric == "latency":
            ratios = [math.log(estimates.middle(block)) for block in estimates.paired(a.blocks, b.blocks)]
            return compare.lockstep(ratios, self.tolerance, worse_level, fine_level)
        before, after = ([sign * value for value in sample.logs] for sample in (a, b))
        return compare.apart(before, after, self.tolerance, worse_level, fine_level, self.job_sd)

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
        elif self.paired and self.metric == "latency":
            evidence.append(f"{int(judgement.n)} blocks that both sides share")
        elif self.job_sd:
            evidence.append(f"no pace: the same code is taken to differ by {self.job_sd:.0%} between jobs")
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
            head=a.centre * ratio if a.paced else b.centre,
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
    pairs: Iterable[tuple[Known, Known]],
    policy: Policy,
    alpha: float,
    without: tuple[str, ...],
    one_job: bool,
    paired: bool = False,
) -> tuple[list[Finding], list[str]]:
    """Judges all metrics together, since they share the chance of any false alarm (Holm).

    Returns their findings, and notes on what could not be tested.
    """
    tests, findings, reasons = [], [], dict[str, None]()
    for base, head in pairs:
        rules = policy.of(base.case)
        for name, tolerance in rules.tolerance.items():
            if name in (DEVIATION, TASK, OUTPUTS, *without):
                continue
            why = untestable(base.metrics.get(name), head.metrics.get(name))
            if not why:
                a = base.metrics[name]
                extra = MEMORY_SLACK_BYTES / a.centre if name == "memory" else 0.0
                tests.append(
                    Test(
                        base,
                        head,
                        name,
                        tolerance + extra,
                        policy.between_jobs_sd if name in TIMES and not a.paced and not one_job else 0.0,
                        paired,
                    )
                )
            elif name in rules.asked or (name == "latency" and why != NEITHER):
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
            else:
                reasons[f"{name} is not judged: {why}"] = None
    levels = [alpha / (rank + 1) for rank in range(len(tests))]
    each = compare.holm([test.at(alpha, alpha).p_worse for test in tests], levels)
    return findings + [
        test.finding(level, policy.alpha) for test, level in zip(tests, each, strict=True)
    ], list(reasons)


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


def causes(moved: list[Finding], findings: list[Finding]) -> list[Finding]:
    """Returns the findings `moved`, each regression in time with the structural change of its case
    as evidence, or that there is none.
    """
    changed: dict[str, list[str]] = {}
    for finding in findings:
        if finding.kind == "counter" and finding.base != finding.head:
            changed.setdefault(finding.case, []).append(
                f"{finding.metric} {finding.base:g} -> {finding.head:g}"
                if finding.base is not None and finding.head is not None
                else finding.metric
            )
    explained = []
    for finding in moved:
        if finding.verdict == "regression" and finding.metric in TIMES:
            cause = (
                f"with {', '.join(changed[finding.case])}"
                if finding.case in changed
                else "no structural cause"
            )
            finding = msgspec.structs.replace(finding, evidence=(*finding.evidence, cause))
        explained.append(finding)
    return explained


def excused(findings: list[Finding], policy: Policy) -> list[Finding]:
    """Returns the findings; of a case that is surely faster, a counter that is no harm by itself is
    no regression, unless the policy names it.
    """
    faster = {
        finding.case
        for finding in findings
        if finding.metric == "latency" and finding.high is not None and finding.high < 1
    }
    return [
        msgspec.structs.replace(finding, verdict="pass", evidence=(NO_HARM,))
        if finding.kind == "counter"
        and finding.case in faster
        and finding.verdict == "regression"
        and finding.metric in COUNTERS
        and not COUNTERS[finding.metric].harm
        and finding.metric not in policy.of(finding.case).slack
        else finding
        for finding in findings
    ]


def conclude(findings: list[Finding], reasons: list[str], policy: Policy, tool: str = "gate") -> Verdict:
    """Returns the verdict of all findings: the worst decides.

    What could not be told is never green, unless the policy says so, and then it says so.
    """
    findings = excused(findings, policy)
    outcomes = [finding.verdict for finding in findings]
    if policy.inconclusive == "pass" and "inconclusive" in outcomes:
        unknown = outcomes.count("inconclusive")
        outcomes = [outcome if outcome != "inconclusive" else "pass" for outcome in outcomes]
        reasons = [f"{unknown} could not be told and count as passed, as the policy says", *reasons]
    if not findings:
        reasons = [NOTHING, *reasons]
    return Verdict(tool, worst(outcomes), tuple(reasons), tuple(findings))
