"""Two sides and a policy give one verdict: who is there, what differs in structure (exact, no
noise), what is measured (at a stated error rate: metrics.py).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from itertools import pairwise

import msgspec

from ..readers.side import LATENCY, UNREADABLE, Known, Side, differs, moment
from ..terms.counters import COUNTERS
from ..terms.verdict import Finding, Verdict, worst
from .mentions import mentions
from .metrics import TIMES, metrics
from .policy import (
    DEVIATION,
    MOST_TOLERANCE,
    TASK,
    Policy,
    Rules,
    accepting,
    allowance,
    percent,
)
from .shift import levelled

# The reason of a verdict without findings.
NOTHING = "nothing could be judged"
# Of files of tools that never say where they ran.
UNNAMED = "the files do not say which machine measured them: taken to be one and the same"
# Why a counter that grew is no regression.
NO_HARM = "reported only: the case is faster"


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
    apart = not both and (base.cases or head.cases)
    findings += borders + ([nothing_in_common(base, head)] if apart else [])
    reasons = [*base.notes, *head.notes, *reasons, *notes, *policy.idle([*base.cases, *head.cases])]
    measured = [(mine, theirs) for mine, theirs in comparable if mine.good and theirs.good]
    for mine, theirs in measured:
        findings += structure(mine, theirs, policy.of(mine.case))
    for theirs in head.cases.values():
        if not policy.of(theirs.case).ignored:
            findings += limits(theirs, policy.of(theirs.case).limits)
    side_by_side = one_job or in_turns(base, head)
    timed = measured if side_by_side else levelled(measured, (base.runs, head.runs))
    moved, unjudged = metrics(timed, policy, alpha or policy.alpha, without, side_by_side, paired)
    reasons += [*unjudged, *mentions(measured, policy)]
    return conclude([*findings, *causes(moved, findings)], reasons, policy)


def in_turns(base: Side, head: Side) -> bool:
    """Returns whether the runs of both sides took turns on one machine, so that a slow hour met
    both: in the order of time, after most runs comes one of the other side.
    """
    moments = [
        (when, side) for side in (base, head) for text in side.moments if (when := moment(text)) is not None
    ]
    counts = len(base.moments), len(head.moments)
    if not min(counts) or len(moments) < sum(counts):
        return False
    nodes = {
        known.environment.get("node", "")
        for side in (base, head)
        for known in side.cases.values()
        if isinstance(known.environment, Mapping)
    }
    if len(nodes) != 1:
        return False
    order = [side is head for _, side in sorted(moments, key=lambda each: each[0])]
    changes = sum(a != b for a, b in pairwise(order))
    return changes >= min(counts)


def nothing_in_common(base: Side, head: Side) -> Finding:
    """Returns the finding on two sides without a case that could be compared."""
    names = [", ".join(list(side.cases)[:3]) or "nothing" for side in (base, head)]
    evidence = (f"no results in common: BASE has {names[0]}; HEAD has {names[1]}",)
    return Finding("all cases", "presence", "inconclusive", kind="presence", evidence=evidence)


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
        elif UNREADABLE in (mine.status, theirs.status):
            evidence = tuple(
                f"{side}: {known.reason}"
                for side, known in (("BASE", mine), ("HEAD", theirs))
                if known.status == UNREADABLE
            )
            findings.append(
                Finding(
                    name, "presence", "inconclusive", kind="presence", evidence=evidence, place=theirs.place
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
    reasons += [
        f"new: {name}" + ("" if head.cases[name].good else f" ({head.cases[name].status})") for name in new
    ]
    return findings, reasons


def environments(
    both: Iterable[tuple[Known, Known]],
) -> tuple[list[tuple[Known, Known]], list[Finding], list[str]]:
    """Returns the pairs that may be compared, a finding for each that may not, and notes on what
    else differs.
    """
    comparable, findings, notes = [], [], dict[str, None]()
    for mine, theirs in both:
        if not (mine.good or theirs.good):
            continue
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
        if mine.environment is None and theirs.environment is None:
            notes[UNNAMED] = None
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
        if finding.metric == LATENCY and finding.high is not None and finding.high < 1
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
