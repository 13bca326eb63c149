"""Stored results as series over time: where a level changed, what alarms now, where the environment
changed.

A series is one metric of one case in one setting (machine, libraries, threads): points that may be
compared. Runners that take turns are series of their own, and none crosses a change of the
environment. Points are not weighted by their intervals: what differs from job to job is several
times wider than any of them, so such weights would follow the least part of the noise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from ..lookup import source_lines
from ..reports.formats import amount
from ..stats import changes, estimates
from ..stats.changes import LASTING, SHORTEST, ChangePoint
from ..stats.two_levels import TwoLevels, two_levels
from ..terms.case import Better
from ..terms.verdict import Finding, Verdict, worst
from . import acknowledged
from .acknowledged import Acknowledgements
from .archive import Point

# A first level of LASTING points and SHORTEST of the next: with fewer, a change may go unseen.
FEWEST = LASTING + SHORTEST
# A case that so many newest results of its workload lack is named.
MISSED = 3


class Series(NamedTuple):
    """One metric of one case in one setting.

    points: oldest first. changes: of level, settled. young: a provisional one at the end.
    alternating: instead of changes, where the series jumps at random between two levels. Counters
    have no noise: each change of theirs is settled.
    """

    points: tuple[Point, ...]
    changes: tuple[ChangePoint, ...] = ()
    young: ChangePoint | None = None
    alternating: TwoLevels | None = None

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
            change
            for change in [*self.changes[-1:], *([self.young] if self.young else [])]
            if len(self.points) - change.index < LASTING and self.worse(change)
        ]
        return recent[-1] if recent and not self.exact else None

    @property
    def confirmed(self) -> bool:
        return self.alarm is not None and self.alarm is not self.young

    def levels(self, change: ChangePoint) -> tuple[float, float]:
        """Returns the medians before and after, in the metric's unit."""
        edges = sorted({0, len(self.points), change.index, *(each.index for each in self.changes)})
        number = edges.index(change.index)
        centres = [point.centre for point in self.points]
        before = centres[edges[number - 1] : change.index]
        after = centres[change.index : edges[number + 1]]
        return estimates.median(before), estimates.median(after)

    def between(self, change: ChangePoint) -> tuple[Point, Point]:
        """Returns the last point of the old level and the first of the new one."""
        return self.points[change.index - 1], self.points[change.index]


class Border(NamedTuple):
    """The setting of `cases` cases changed from one point to the next.

    at: the point after it, of the first of them. changed: name -> value before and after.
    """

    at: Point
    changed: dict[str, tuple[str, str]]
    cases: int


def series(points: Sequence[Point], tell: Callable[[str], None]) -> list[Series]:
    """Returns the series of these points, in order of case, metric and time.

    points: as the archive gives them. tell: gets how far it is.
    """
    all_series = []
    groups = sorted(
        (list(some) for _, some in groupby(sorted(points, key=_kind), key=_kind)),
        key=lambda group: (*_kind(group[0])[:3], group[0].measured),
    )
    for number, group in enumerate(groups):
        if number % 50 == 49:
            tell(f"{number + 1} of {len(groups)} series")
        all_series.append(_steps(group) if group[-1].kind == "counter" else of_points(group))
    return all_series


def _kind(point: Point) -> tuple[str, str, str, str]:
    return point.case, point.metric, point.kind, point.setting


def of_points(points: Sequence[Point]) -> Series:
    """Returns the points of one setting as a series, with what its levels do."""
    values = [point.value for point in points]
    if alternating := two_levels(values):
        return Series(tuple(points), alternating=alternating)
    steps = changes.change_points(values)
    return Series(tuple(points), steps, changes.provisional(values, steps))


def _steps(points: list[Point]) -> Series:
    pairs = enumerate(pairwise(point.value for point in points), start=1)
    steps = tuple(ChangePoint(index, (b - a) / max(a, 1), 0.0) for index, (a, b) in pairs if a != b)
    return Series(tuple(points), steps)


def borders(points: Sequence[Point], settings: Mapping[str, Mapping[str, str]]) -> list[Border]:
    """Returns the changes of the environment, oldest first, each once however many cases saw it or
    how often runners took turns.

    settings: key -> what two results must share to be compared.
    """
    changes_of: dict[tuple[str, str], tuple[Point, set[str]]] = {}
    for _, group in groupby(points, key=lambda point: point.case):
        distinct = {(point.measured, point.path, point.setting): point for point in group}
        for before, after in pairwise(sorted(distinct.values(), key=lambda point: point.measured)):
            if before.setting != after.setting:
                _, cases = changes_of.setdefault((before.setting, after.setting), (after, set()))
                cases.add(after.case)
    ordered = sorted(changes_of.items(), key=lambda item: item[1][0].measured)
    return [
        Border(point, _differences(settings[a], settings[b]), len(cases))
        for (a, b), (point, cases) in ordered
    ]


def _differences(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    return {
        name: (a.get(name, "none"), b.get(name, "none")) for name in {**a, **b} if a.get(name) != b.get(name)
    }


def judge(all_series: Sequence[Series], accepted: Acknowledgements, whole: bool) -> Verdict:
    """Returns the verdict on the present: alarms alone are findings; what lies further back has
    been seen. One that is acknowledged passes. With no series long enough nothing can be told.

    Only series that still grow are judged: one whose setting is gone can neither alarm for ever nor
    vouch for its successor. whole: whether these are all series, so that an acknowledgement of no
    alarm among them is idle.
    """
    still = growing(all_series)
    live = [series for series in all_series if still(series, LASTING)]
    alarms = [(series, series.alarm) for series in live if series.alarm is not None]
    findings = [finding(series, alarm, accepted) for series, alarm in alarms]
    timed = [series for series in live if not series.exact]
    short = sum(series.short for series in timed)
    reasons = (
        [f"{short} of {len(timed)} series are shorter than the {FEWEST} points that a change of level needs"]
        if short
        else []
    )
    if gone := sum(not series.exact for series in all_series) - len(timed):
        reasons.append(
            f"{gone} series of earlier settings have no point in the newest {LASTING} results and are not"
            " judged"
        )
    by_time = sorted(all_series, key=lambda series: series.points[-1].measured)
    last = {series.case: series.points[-1] for series in by_time}
    now = {series.case for series in all_series if still(series, MISSED)}
    reasons += [
        f"{case} is not in the newest {MISSED} results, last {where(point)}: skipped, failed or gone"
        for case, point in sorted(last.items())
        if case not in now
    ]
    if whole:
        reasons += accepted.idle([series.between(alarm)[1] for series, alarm in alarms])
    nothing = not timed or short == len(timed)
    outcome = worst([*(each.verdict for each in findings), "inconclusive" if nothing else "pass"])
    return Verdict("history", outcome, tuple(reasons), tuple(findings))


def growing(all_series: Sequence[Series]) -> Callable[[Series, int], bool]:
    """Returns a function that says whether a series has a point among so many newest results of
    its workload, whatever their setting.
    """
    times: dict[str, set[float]] = {}
    for series in all_series:
        workload = series.case.partition("/")[0]
        times.setdefault(workload, set()).update(point.measured for point in series.points)
    newest = {workload: sorted(moments, reverse=True) for workload, moments in times.items()}

    def still(series: Series, count: int) -> bool:
        moments = newest[series.case.partition("/")[0]]
        return series.points[-1].measured >= moments[min(count, len(moments)) - 1]

    return still


def finding(series: Series, alarm: ChangePoint, accepted: Acknowledgements) -> Finding:
    """Returns the alarm of a series as a finding: a regression once it is confirmed, and a pass
    where it is acknowledged.
    """
    before, after = series.between(alarm)
    base, head = series.levels(alarm)
    count = len(series.points) - alarm.index
    state = f"provisional: {count} points; {SHORTEST} can confirm it"
    if series.confirmed:
        state = f"confirmed by {count} points"
    evidence = (
        f"since {where(after)}, before {where(before)}",
        f"{state}, p {alarm.p:.2g}",
        *(["as ratios to the pace"] if after.kind == "paced" else []),
    )
    reason = accepted.reason(after)
    return Finding(
        series.case,
        series.metric,
        "pass" if reason else "regression" if series.confirmed else "inconclusive",
        base,
        head,
        1 + alarm.effect,
        better=series.better,
        unit=after.unit,
        evidence=evidence,
        place=source_lines.find(series.case.partition("/")[0]),
        acknowledged=reason,
        entry=() if reason else acknowledged.entry(after),
    )


def where(point: Point) -> str:
    """Returns a point in the words of its reader: day and commit."""
    return " ".join(
        [
            time.strftime("%Y-%m-%d", time.gmtime(point.measured)),
            *([point.revision[:12]] if point.revision else []),
        ]
    )


def alternation(series: Series, two: TwoLevels) -> str:
    """Returns in words between which levels a series alternates, in the unit of its values."""
    last = series.points[-1]
    unit, of = ("", " of the pace") if last.kind == "paced" else (last.unit, "")
    return (
        f"two levels, alternating: {amount(two.low, unit)} and {amount(two.high, unit)}{of}"
        f" ({two.share:.0%} of the points), {two.turns} turns"
    )
