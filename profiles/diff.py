"""Two traces of the same work: what changed above the noise, and why. Judged by parts, matched by operator first, then by kernel.

Runs of the same program differ by 0.05 to 0.1 % in the time of their kernels and by up to 12.8 % in the wall (shared/TRACES.md): kernels are judged at
1 %, steps only beyond what the wall does by itself. Copies share memory with whatever else the host does, and count as wall.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..perf.compare import Verdict as Outcome
from ..perf.units import scaled
from ..perf.verdict import Finding, Verdict, worst
from . import review
from .figures import summed
from .review import Review
from .trace import NONE

WORK_FLOOR, WALL_FLOOR, WALL_FINE = 0.01, 0.128, 0.03
# Of the larger side's step: a change below this is not worth a line.
WORTH = 0.002
ROWS = 12


class Moved(NamedTuple):
    """A part, operator, kernel or culprit of both sides, in ns and events a step (or of the whole window, where one side has no steps)."""

    name: str
    before: float
    after: float
    events_before: float = 0.0
    events_after: float = 0.0
    within: str = ""

    @property
    def change(self) -> float:
        return self.after - self.before

    @property
    def where(self) -> str:
        return f"{self.name} in {self.within}" if self.within else self.name

    @property
    def times(self) -> str:
        """How often, where that changed."""
        return f", {self.events_before:.4g} -> {self.events_after:.4g} times" if self.events_before != self.events_after else ""


class Diff(NamedTuple):
    """per: what all times are of, a step or the window. Each list has the largest change first."""

    base: Review
    head: Review
    per: str
    parts: list[Moved]
    operators: list[Moved]
    kernels: list[Moved]
    idle: list[Moved]
    verdict: Verdict


def of(base: Review, head: Review) -> Diff:
    stepped = bool(base.facts.steps and head.facts.steps)
    divisors = tuple(len(side.facts.steps) if stepped else 1 for side in (base, head))
    scale = max(wall(side, stepped) for side in (base, head))
    lists = {name: ranked(matched(base, head, divisors, what), scale) for name, what in (("operators", by_operator), ("kernels", by_kernel), ("idle", by_culprit))}
    parts = matched(base, head, divisors, by_part)
    per = "step" if stepped else "window"
    return Diff(base, head, per, parts, **lists, verdict=judged(base, head, stepped, per, parts, lists["operators"], lists["idle"]))


def wall(side: Review, stepped: bool) -> float:
    """ns of a step, its median; of the window where there are no steps."""
    return float(np.median([step.dur for step in side.facts.steps])) if stepped else float(side.facts.line.window)


Rows = Iterable[tuple[str, int, int, str]]


def by_part(side: Review) -> Rows:
    return [(name, length, 0, "") for name, length in (side.bound.parts if side.bound else {}).items()]


def by_operator(side: Review) -> Rows:
    return [(row.name, row.length, row.events, "") for row in review.operators(side.facts)] if side.bound else []


def by_kernel(side: Review) -> Rows:
    """With the operator that it belongs to, as cuDNN may choose another kernel for the same operator."""
    if not side.bound:
        return []
    facts, names = side.facts, side.trace.names
    behind, gpu = facts.behind, facts.line.gpu
    operator = np.where(behind == NONE, NONE, side.trace.operators.name[behind] if len(side.trace.operators) else NONE)
    pairs = gpu.name * (len(names) + 1) + operator + 1
    return [
        (names[code // (len(names) + 1)], length, events, names[code % (len(names) + 1) - 1] if code % (len(names) + 1) else review.NO_OPERATOR)
        for code, events, length in summed(pairs, gpu.dur)
    ]


def by_culprit(side: Review) -> Rows:
    return [(f"{one.blame}: {one.label}", one.length, one.gaps, "") for one in side.facts.culprits.ranked] if side.bound else []


def matched(base: Review, head: Review, divisors: tuple[int, ...], what: Callable[[Review], Rows]) -> list[Moved]:
    """Both sides by name."""
    sides: list[dict[tuple[str, str], tuple[float, float]]] = []
    for side, divisor in zip((base, head), divisors, strict=True):
        sides.append({(name, within): (length / divisor, events / divisor) for name, length, events, within in what(side)})
    a, b = sides
    nothing = (0.0, 0.0)
    return [Moved(key[0], a.get(key, nothing)[0], b.get(key, nothing)[0], a.get(key, nothing)[1], b.get(key, nothing)[1], key[1]) for key in {**a, **b}]


def ranked(rows: list[Moved], scale: float) -> list[Moved]:
    return sorted((row for row in rows if abs(row.change) >= WORTH * scale), key=lambda row: -abs(row.change))[:ROWS]


def judged(base: Review, head: Review, stepped: bool, per: str, parts: list[Moved], operators: list[Moved], idle: list[Moved]) -> Verdict:
    reasons = [f"{name}: {said}" for name, side in (("BASE", base), ("HEAD", head)) for said in side.trust.said]
    for name, side in (("BASE", base), ("HEAD", head)):
        if side.bound is None or not side.trust.whole:
            return Verdict("review", "not_comparable", (f"{name} is {'damaged' if side.bound else 'without GPU events'}: not judged", *reasons))
    case = Path(head.trace.path).name
    if base.trace.gpu_name != head.trace.gpu_name:
        named = f"different devices, {base.trace.gpu_name} and {head.trace.gpu_name}: shown, not judged"
        return Verdict("review", "not_comparable", (named, *reasons))
    (compute,) = [[row.before, row.after] for row in parts if row.name == "compute"]
    walls = [wall(side, stepped) for side in (base, head)]
    findings = [
        finding(case, "compute", compute, WORK_FLOOR, WORK_FLOOR, operators, per),
        finding(case, f"{per}_time", walls, WALL_FINE, WALL_FLOOR, [*operators, *idle], per),
    ]
    return Verdict("review", worst([one.verdict for one in findings]), tuple(reasons), tuple(findings))


def finding(case: str, metric: str, pair: list[float], fine: float, floor: float, why: list[Moved], per: str) -> Finding:
    """With what moved the same way as its evidence. Worse than the floor is a regression, at most `fine` worse passes, and what lies between repeated runs do by themselves."""
    ratio = pair[1] / pair[0] if pair[0] else 1.0
    verdict: Outcome = "regression" if ratio > 1 + floor else "pass" if ratio <= 1 + fine else "inconclusive"
    same = [row for row in why if (row.change > 0) == (ratio > 1)]
    return Finding(
        case, metric, verdict, pair[0] * 1e-9, pair[1] * 1e-9, ratio, tolerance=fine, detectable=floor, unit="s",
        evidence=tuple(line(row, per) for row in sorted(same, key=lambda row: -abs(row.change))[:5]) if abs(ratio - 1) > fine else (),
    )  # fmt: skip


def line(row: Moved, per: str) -> str:
    """A change in words."""
    before, after, change = (scaled(value * 1e-9, "s") for value in (row.before, row.after, abs(row.change)))
    return f"{row.where}: {'+' if row.change >= 0 else '-'}{change} a {per} ({before} -> {after}{row.times})"


def document(found: Diff) -> dict[str, object]:
    """What moved, as data; ns and events per `per`."""
    lists = {"parts": found.parts, "operators": found.operators, "kernels": found.kernels, "idle": found.idle}
    rows = {name: [{**row._asdict(), "change": row.change} for row in rows] for name, rows in lists.items()}
    return {"file": Path(found.base.trace.path).name, "device": found.base.trace.gpu_name, "per": found.per, **rows}
