"""Stored results as series over time: where a level changed, what alarms now, where the environment
changed.

A series is one metric of one case in one setting (machine, libraries, threads): points that may be
compared. Runners that take turns are series of their own, and none crosses a change of the
environment. Points are not weighted by their intervals as shared/MEASURING.md (c) has it: what
differs from job to job is several times wider than any of them, so such weights would follow the
least part of the noise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from ..lookup import source_lines
from ..stats import changes, estimates
from ..stats.changes import LASTING, SHORTEST, ChangePoint
from ..terms.case import Better
from ..terms.verdict import Finding, Verdict, worst
from .archive import Point

# A first level has at least ten points (history.lasting), and a confirmed change five more.
FEWEST = LASTING + SHORTEST
# A case that so many newest results of its workload lack is named.
MISSED = 3


class Series(NamedTuple):
    """points: oldest first.

    changes: of level, settled. young: a provisional one at the end. Counters have no noise: each
    change is one.
    """

    points: tuple[Point, ...]
    changes: tuple[ChangePoint, ...] = ()
    young: ChangePoint | None = None

    @property
    def case(self) -> str:
        return self.points[-1].case

    @property
    def metric(self) -> str:
        return self.points[-1].metric

    @property
    def exact(self) -> bool:
        return self.points[-1].kind == "counter"

    @property
    def better(self) -> Better:
        return self.points[-1].better

    @property
    def short(self) -> bool:
        return not self.exact and len(self.points) < FEWEST

    def worse(self, change: ChangePoint) -> bool:
        return (change.effect > 0) == (self.better == "lower")

    @property
    def alarm(self) -> ChangePoint | None:
        """A worsening that is the news: the present level, and younger than 10 points."""
        recent = [
            one
            for one in [*self.changes[-1:], *([self.young] if self.young else [])]
            if len(self.points) - one.index < LASTING and self.worse(one)
        ]
        return recent[-1] if recent and not self.exact else None

    @property
    def confirmed(self) -> bool:
        return self.alarm is not None and self.alarm is not self.young

    def levels(self, change: ChangePoint) -> tuple[float, float]:
        """Medians before and after, in the metric's unit."""
        edges = sorted({0, len(self.points), change.index, *(one.index for one in self.changes)})
        at = edges.index(change.index)
        centres = [point.centre for point in self.points]
        return estimates.median(centres[edges[at - 1] : change.index]), estimates.median(
            centres[change.index : edges[at + 1]]
        )

    def between(self, change: ChangePoint) -> tuple[Point, Point]:
        """The last point of the old level and the first of the new one."""
        return self.points[change.index - 1], self.points[change.index]


class Border(NamedTuple):
    """The setting of these cases changed from one point to the next; at: of the first of them."""

    at: Point
    changed: dict[str, tuple[str, str]]
    cases: int


def series(points: Sequence[Point], tell: Callable[[str], None]) -> list[Series]:
    """Points as the archive gives them, in order of case and time."""
    found = []
    groups = sorted(
        (list(some) for _, some in groupby(sorted(points, key=_kind), key=_kind)),
        key=lambda group: (*_kind(group[0])[:3], group[0].measured),
    )
    for number, group in enumerate(groups):
        if number % 50 == 49:
            tell(f"{number + 1} of {len(groups)} series")
        found.append(_steps(group) if group[-1].kind == "counter" else _levels(group))
    return found


def _kind(point: Point) -> tuple[str, str, str, str]:
    return point.case, point.metric, point.kind, point.setting


def _levels(points: list[Point]) -> Series:
    values = [point.value for point in points]
    steps = changes.change_points(values)
    return Series(tuple(points), steps, changes.provisional(values, steps))


def _steps(points: list[Point]) -> Series:
    counts = [point.value for point in points]
    return Series(
        tuple(points),
        tuple(
            ChangePoint(at + 1, (b - a) / max(a, 1), 0.0)
            for at, (a, b) in enumerate(pairwise(counts))
            if a != b
        ),
    )


def borders(points: Sequence[Point], settings: Mapping[str, Mapping[str, str]]) -> list[Border]:
    """Changes of the environment, each once however many cases saw it or how often runners took
    turns.
    """
    found: dict[tuple[str, str], tuple[Point, set[str]]] = {}
    for _, some in groupby(points, key=lambda point: point.case):
        for before, after in pairwise(
            sorted(
                {(point.measured, point.path, point.setting): point for point in some}.values(),
                key=lambda point: point.measured,
            )
        ):
            if before.setting != after.setting:
                _, cases = found.setdefault((before.setting, after.setting), (after, set()))
                cases.add(after.case)
    return [
        Border(at, _differences(settings[a], settings[b]), len(cases))
        for (a, b), (at, cases) in sorted(found.items(), key=lambda one: one[1][0].measured)
    ]


def _differences(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    return {
        name: (a.get(name, "none"), b.get(name, "none")) for name in {**a, **b} if a.get(name) != b.get(name)
    }


def judge(found: Sequence[Series]) -> Verdict:
    """Alarms alone are findings; what lies further back has been seen.

    With no series long enough nothing can be told.

    Only series that still grow are judged: one whose setting is gone can neither alarm for ever nor
    vouch for its successor.
    """
    still = growing(found)
    live = [one for one in found if still(one, LASTING)]
    findings = [finding(one, one.alarm) for one in live if one.alarm is not None]
    timed = [one for one in live if not one.exact]
    short = sum(one.short for one in timed)
    reasons = (
        [f"{short} of {len(timed)} series are shorter than the {FEWEST} points that a change of level needs"]
        if short
        else []
    )
    if gone := sum(not one.exact for one in found) - len(timed):
        reasons.append(
            f"{gone} series of earlier settings have no point in the newest {LASTING} results and are not"
            " judged"
        )
    last = {one.case: one.points[-1] for one in sorted(found, key=lambda one: one.points[-1].measured)}
    now = {one.case for one in found if still(one, MISSED)}
    reasons += [
        f"{case} is not in the newest {MISSED} results, last {where(point)}: skipped, failed or gone"
        for case, point in sorted(last.items())
        if case not in now
    ]
    none = not timed or short == len(timed)
    return Verdict(
        "history",
        worst([one.verdict for one in findings] or ["inconclusive" if none else "pass"]),
        tuple(reasons),
        tuple(findings),
    )


def growing(found: Sequence[Series]) -> Callable[[Series, int], bool]:
    """Whether a series has a point among so many newest results of its workload, whatever their
    setting.
    """
    times: dict[str, set[float]] = {}
    for one in found:
        times.setdefault(one.case.partition("/")[0], set()).update(point.measured for point in one.points)
    newest = {workload: sorted(seen, reverse=True) for workload, seen in times.items()}

    def still(one: Series, count: int) -> bool:
        seen = newest[one.case.partition("/")[0]]
        return one.points[-1].measured >= seen[min(count, len(seen)) - 1]

    return still


def finding(one: Series, alarm: ChangePoint) -> Finding:
    before, after = one.between(alarm)
    base, head = one.levels(alarm)
    count = len(one.points) - alarm.index
    state = (
        f"confirmed by {count} points"
        if one.confirmed
        else f"provisional: {count} points; {SHORTEST} can confirm it"
    )
    said = (
        f"since {where(after)}, before {where(before)}",
        f"{state}, p {alarm.p:.2g}",
        *(["as ratios to the pace"] if after.kind == "paced" else []),
    )
    return Finding(
        one.case,
        one.metric,
        "regression" if one.confirmed else "inconclusive",
        base,
        head,
        1 + alarm.effect,
        better=one.better,
        unit=after.unit,
        evidence=said,
        place=source_lines.find(one.case.partition("/")[0]),
    )


def where(point: Point) -> str:
    """A point in the words of its reader: day and commit."""
    return " ".join(
        [
            time.strftime("%Y-%m-%d", time.gmtime(point.measured)),
            *([point.revision[:12]] if point.revision else []),
        ]
    )
