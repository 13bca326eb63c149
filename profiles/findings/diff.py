"""Two traces of the same work: what changed above the noise, and why.

Judged by parts, matched by operator first, then by kernel; profiles of different tools are laid
beside each other by what their operators are for (kinds.py).

Runs of the same program differ by 0.05 to 0.1 % in the time of their kernels and by up to 12.8 % in
the wall: kernels are judged at 1 %, steps only beyond what the wall does by
itself. Copies share memory with whatever else the host does, and count as wall. Two processes on a
CPU, one after the other, were seen 30 % apart with the same code: there only twice the time is a
regression, and `hotlap ab` tells the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...perf.stats.compare import Outcome
from ...perf.terms.case import Case
from ...perf.terms.reasons import Misuse
from ...perf.terms.units import scaled
from ...perf.terms.verdict import Finding, Verdict, worst
from ..facts import kinds
from ..facts.figures import summed
from ..tables import captured
from ..tables.trace import NONE
from . import review
from .review import Review

# Shares by which more is a regression, from what repeated runs differ by (above): of computing, of
# steps with a GPU, of steps on a CPU. Up to WALL_FINE a step is no slower.
WORK_FLOOR = 0.01
WALL_FLOOR = 0.128
CPU_FLOOR = 1.0
WALL_FINE = 0.03
# A kind of operator is a reason for a change from this share of it on; so many are named.
REASON = 0.1
REASONS = 3
# An operator stands behind a slower HEAD from this share of what it is slower by on.
BEHIND = 0.25
# Calls that take so many times as long under the profiler make their parts upper bounds.
COSTLY = 1.5
# Of the larger side's step: a change below this is not worth a line.
WORTH = 0.002
# Rows of a list.
ROWS = 12
# What has no operator: of a GPU, of a CPU; and a machine that is not recorded.
IDLE = "GPU idle"
REST = "outside operators"
UNKNOWN_CPU = "unknown CPU"


class Moved(NamedTuple):
    """A part, operator, kernel or culprit of both sides, a step (or of the whole window, where one
    side has no steps).
    """

    # What it is.
    name: str
    # ns of BASE and of HEAD.
    before: float
    after: float
    # Events of BASE and of HEAD.
    events_before: float = 0.0
    events_after: float = 0.0
    # Of a kernel: the operator that it belongs to.
    within: str = ""

    @property
    def change(self) -> float:
        return self.after - self.before

    @property
    def where(self) -> str:
        return f"{self.name} in {self.within}" if self.within else self.name

    @property
    def times(self) -> str:
        """How often it ran, in words, where that changed."""
        if self.events_before == self.events_after:
            return ""
        return f", {self.events_before:.4g} -> {self.events_after:.4g} times"


class Diff(NamedTuple):
    """What changed between two traces."""

    # The two sides.
    base: Review
    head: Review
    # What all times are of: step or window.
    per: str
    # ns of it, BASE and HEAD.
    walls: tuple[float, float]
    # Faster or slower, and why, in one sentence; empty where nothing moved.
    because: str
    # By what operators are for, the largest change first.
    kinds: list[Moved]
    # Parts of the window or of the steps.
    parts: list[Moved]
    # Operators, the largest change first.
    operators: list[Moved]
    # Kernels, the largest change first.
    kernels: list[Moved]
    # What the host did in idle time, the largest change first.
    idle: list[Moved]
    # Whether HEAD is worse, with the evidence.
    verdict: Verdict


def of(base: Review, head: Review) -> Diff:
    stepped = bool(base.facts.steps and head.facts.steps)
    divisors = tuple(len(side.facts.steps) if stepped else 1 for side in (base, head))
    walls = timed(base, head, stepped)
    scale = max(walls)
    lists = {
        name: ranked(matched(base, head, divisors, what), scale)
        for name, what in (("operators", by_operator), ("kernels", by_kernel), ("idle", by_culprit))
    }
    parts = matched(base, head, divisors, by_part)
    per = "step" if stepped else "window"
    kinds = sorted(matched(base, head, divisors, by_kind), key=lambda row: -abs(row.change))
    because = reasons(walls, per, kinds, base, head)
    return Diff(
        base,
        head,
        per,
        walls,
        because,
        kinds,
        parts,
        **lists,
        verdict=judged(base, head, walls, per, parts, lists["operators"], lists["idle"]),
    )


def timed(base: Review, head: Review, stepped: bool) -> tuple[float, float]:
    """Returns ns of a step of BASE and of HEAD, or of the window where there are no steps.

    Steps are those without the profiler, where both files tell, else the medians of the recorded.
    """
    origins = [captured.of(side.trace) for side in (base, head)]
    plain = [origin.overhead.plain_s * 1e9 for origin in origins if origin and origin.overhead]
    if stepped and len(plain) == 2:
        return plain[0], plain[1]
    if not stepped:
        return float(base.facts.line.window), float(head.facts.line.window)
    before, after = (float(np.median([step.dur for step in side.facts.steps])) for side in (base, head))
    return before, after


def reasons(walls: tuple[float, float], per: str, kinds: list[Moved], base: Review, head: Review) -> str:
    """Returns one sentence: faster or slower by how much, because of which kinds of operators.

    Empty where nothing moved beyond `WALL_FINE`.
    """
    costly = ""
    for name, side in (("BASE", base), ("HEAD", head)):
        origin = captured.of(side.trace)
        if origin and origin.overhead and origin.overhead.factor >= COSTLY:
            costly += (
                f" ({name}'s profiler makes calls {origin.overhead.factor:.1f} times as long, so its parts"
                " are upper bounds)"
            )
    change = walls[1] - walls[0]
    if not walls[0] or abs(change) <= WALL_FINE * walls[0]:
        return ""
    same = [row for row in kinds if row.change * change > 0 and abs(row.change) >= REASON * abs(change)][
        :REASONS
    ]
    how = (
        f"{walls[0] / walls[1]:.2f} times as fast" if change < 0 and walls[1] else f"{change / walls[0]:+.1%}"
    )
    headline = f"{'faster' if change < 0 else 'slower'} by {scaled(abs(change) * 1e-9, 's')} a {per} ({how})"
    why = "; ".join(
        f"{row.name} {'+' if row.change > 0 else '-'}{scaled(abs(row.change) * 1e-9, 's')}{row.times}"
        for row in same
    )
    return (
        f"{headline}, because: {why}" if why else f"{headline}; no kind of operator moved as much"
    ) + costly


Rows = Iterable[tuple[str, int, int, str]]


def by_part(side: Review) -> Rows:
    return [(name, length, 0, "") for name, length in (side.bound.parts if side.bound else {}).items()]


def by_operator(side: Review) -> Rows:
    """Returns operators by their time on the GPU where there is one, else on the CPU."""
    rows = review.operators(side.facts) if len(side.trace.gpu) else review.on_cpu(side.facts)
    return [(row.name, row.length, row.events, "") for row in rows]


def by_kind(side: Review) -> Rows:
    """Returns the time by what operators are for, and what of it no operator has.

    A kernel decides where its operator does not tell.
    """
    sums: dict[str, list[int]] = {}
    for name, length, events, within in by_kernel(side) or by_operator(side):
        kind = kinds.of(within) if within else kinds.OTHER
        kind = kinds.of(name) if kind == kinds.OTHER else kind
        entry = sums.setdefault(kind, [0, 0])
        entry[0] += length
        entry[1] += events
    rows = [(kind, length, events, "") for kind, (length, events) in sums.items()]
    if side.bound:
        return [*rows, (IDLE, int(np.sum(side.facts.idle.length)), 0, "")]
    rest = sum(step.dur for step in side.facts.steps) - sum(length for _, length, _, _ in rows)
    return [*rows, (REST, rest, 0, "")] if rest > 0 else rows


def by_kernel(side: Review) -> Rows:
    """Returns kernels with the operator that each belongs to: cuDNN may choose another kernel for
    the same operator.
    """
    if not len(side.trace.gpu):
        return []
    facts, names = side.facts, side.trace.names
    behind, gpu = facts.behind, facts.line.gpu
    operator = np.where(
        behind == NONE, NONE, side.trace.operators.name[behind] if len(side.trace.operators) else NONE
    )
    pairs = gpu.name * (len(names) + 1) + operator + 1
    return [
        (
            names[code // (len(names) + 1)],
            length,
            events,
            names[code % (len(names) + 1) - 1] if code % (len(names) + 1) else review.NO_OPERATOR,
        )
        for code, events, length in summed(pairs, gpu.dur)
    ]


def by_culprit(side: Review) -> Rows:
    return (
        [
            (f"{culprit.blame}: {culprit.label}", culprit.length, culprit.gaps, "")
            for culprit in side.facts.culprits.ranked
        ]
        if side.bound
        else []
    )


def matched(
    base: Review, head: Review, divisors: tuple[int, ...], what: Callable[[Review], Rows]
) -> list[Moved]:
    """Returns what `what` gives of both sides, by name, a step or window."""
    sides: list[dict[tuple[str, str], tuple[float, float]]] = []
    for side, divisor in zip((base, head), divisors, strict=True):
        sides.append(
            {
                (name, within): (length / divisor, events / divisor)
                for name, length, events, within in what(side)
            }
        )
    a, b = sides
    nothing = (0.0, 0.0)
    return [
        Moved(
            key[0],
            a.get(key, nothing)[0],
            b.get(key, nothing)[0],
            a.get(key, nothing)[1],
            b.get(key, nothing)[1],
            key[1],
        )
        for key in {**a, **b}
    ]


def ranked(rows: list[Moved], scale: float) -> list[Moved]:
    return sorted(
        (row for row in rows if abs(row.change) >= WORTH * scale), key=lambda row: -abs(row.change)
    )[:ROWS]


def judged(
    base: Review,
    head: Review,
    walls: tuple[float, float],
    per: str,
    parts: list[Moved],
    operators: list[Moved],
    idle: list[Moved],
) -> Verdict:
    reasons = [
        f"{name}: {note}" for name, side in (("BASE", base), ("HEAD", head)) for note in side.trust.notes
    ]
    if not (base.bound and head.bound) and not len(head.trace.gpu):
        reasons.append("one process each on a CPU: hotlap ab tells whether a small difference is one")
    if against := incomparable(base, head, per):
        return Verdict("review", "not_comparable", (against, *reasons))
    case = Path(head.trace.path).name
    floor = WALL_FLOOR if len(base.trace.gpu) and len(head.trace.gpu) else CPU_FLOOR
    findings = [finding(case, f"{per}_time", list(walls), WALL_FINE, floor, [*operators, *idle], per)]
    if base.bound and head.bound:
        (compute,) = [[row.before, row.after] for row in parts if row.name == "compute"]
        findings.insert(0, finding(case, "compute", compute, WORK_FLOOR, WORK_FLOOR, operators, per))
    return Verdict("review", worst([item.verdict for item in findings]), tuple(reasons), tuple(findings))


def incomparable(base: Review, head: Review, per: str) -> str:
    """Returns why two files are shown beside each other and not judged; empty if they can be."""
    for name, side in (("BASE", base), ("HEAD", head)):
        if not side.trust.whole:
            return f"{name} is damaged: not judged"
        if not len(side.trace.gpu) and (len(base.trace.gpu) or len(head.trace.gpu)):
            return f"{name} is without GPU events: not judged"
    machines = [machine(side) for side in (base, head)]
    if UNKNOWN_CPU in machines:
        return "which CPU a file is of is not recorded: shown, not judged (hotlap profile records it)"
    if machines[0] != machines[1]:
        return f"different devices, {machines[0]} and {machines[1]}: shown, not judged"
    captures = [captured.of(side.trace) for side in (base, head)]
    cases = [asked(origin.case) for origin in captures if origin and origin.case]
    if len(cases) == 2 and cases[0] != cases[1]:
        return (
            f"different work, {' and '.join(' '.join(str(part) for part in case) for case in cases)}: shown,"
            " not judged"
        )
    if base.trace.source != head.trace.source and not all(origin and origin.overhead for origin in captures):
        return (
            f"profiles of different tools, {base.trace.source} and {head.trace.source}: shown, not judged"
            " (hotlap profile times calls without the profiler, which can be judged)"
        )
    if not (base.bound and head.bound) and per != "step":
        return "without steps, and without a window of the GPU: not judged"
    return ""


def machine(side: Review) -> str:
    """Returns what the work ran on, as far as the file tells."""
    origin = captured.of(side.trace)
    return side.trace.gpu_name if len(side.trace.gpu) else (origin.hardware if origin else "") or UNKNOWN_CPU


def asked(case: str) -> tuple[object, ...]:
    """Returns what of a recorded case must be the same: backend, precision and options may differ,
    since they are what is compared.
    """
    try:
        parsed = Case.parse(case)
    except Misuse:
        return (case,)
    return parsed.workload, f"batch {parsed.batch}", parsed.mode


def finding(
    case: str, metric: str, pair: list[float], fine: float, floor: float, why: list[Moved], per: str
) -> Finding:
    """Returns a verdict on `pair` (ns of BASE, HEAD), with what moved the same way as evidence.

    Worse than the floor is a regression, at most `fine` worse passes, and what lies between
    repeated runs do by themselves.
    """
    if not pair[0]:
        return Finding(
            case,
            metric,
            "inconclusive" if pair[1] else "pass",
            0.0,
            pair[1] * 1e-9,
            unit="s",
            evidence=("BASE has none of it",) if pair[1] else (),
        )
    ratio = pair[1] / pair[0]
    verdict: Outcome = "regression" if ratio > 1 + floor else "pass" if ratio <= 1 + fine else "inconclusive"
    same = [row for row in why if (row.change > 0) == (ratio > 1)]
    return Finding(
        case,
        metric,
        verdict,
        pair[0] * 1e-9,
        pair[1] * 1e-9,
        ratio,
        tolerance=fine,
        detectable=floor,
        unit="s",
        evidence=(
            tuple(line(row, per) for row in sorted(same, key=lambda row: -abs(row.change))[:5])
            if abs(ratio - 1) > fine
            else ()
        ),
    )


def behind(pairs: Sequence[Sequence[Path]], slower_s: float) -> str:
    """Returns which operators a slower HEAD spends its time in, as one line.

    pairs: profiles of the same case, of BASE and of HEAD. slower_s: seconds a call by which HEAD
    was measured to be slower, without the profiler, whose own cost is in the times of a profile. An
    operator is named that takes a quarter of it longer in every pair.
    """
    sides = [[review.review(file) for file in pair] for pair in pairs]
    diffs = [of(base, head) for base, head in sides]
    slower = [
        {row.name: row for row in diff.operators if row.change >= BEHIND * slower_s * 1e9} for diff in diffs
    ]
    rows = [row for name, row in slower[0].items() if all(name in each for each in slower)]
    if not rows:
        return (
            f"no operator takes a quarter of {scaled(slower_s, 's')} longer in each of {len(pairs)} profiles"
        )
    words = "; ".join(line(row, diffs[0].per) for row in rows[:REASONS])
    return f"by {len(pairs)} profiles a side: {words}"


def line(row: Moved, per: str) -> str:
    """Returns a change in words."""
    before, after, change = (scaled(value * 1e-9, "s") for value in (row.before, row.after, abs(row.change)))
    return f"{row.where}: {'+' if row.change >= 0 else '-'}{change} a {per} ({before} -> {after}{row.times})"


def document(diff: Diff) -> dict[str, object]:
    """Returns what moved, as data; ns and events per `per`."""
    lists = {
        "kinds": diff.kinds,
        "parts": diff.parts,
        "operators": diff.operators,
        "kernels": diff.kernels,
        "idle": diff.idle,
    }
    rows = {name: [{**row._asdict(), "change": row.change} for row in rows] for name, rows in lists.items()}
    about = {
        "file": Path(diff.base.trace.path).name,
        "device": machine(diff.base),
        "source": diff.base.trace.source,
        "per": diff.per,
    }
    return {**about, "times_ns": list(diff.walls), "because": diff.because, **rows}
