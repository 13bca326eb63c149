"""What the cases of one metric do together: the median of them all, each as a ratio to its own
level.

A step of 1 % in each of twelve cases that vary by 2 % is to be seen in none of them, and in their
median at once; and a step of one case alone does not move it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from ..stats.estimates import median
from .archive import Point
from .series import FEWEST, Series, of_points

# What stands where other series have their case.
NAME = "all cases together"
# With fewer cases a median is that of the one that changed.
FEWEST_CASES = 6
# A case with a smaller share of the runs than this would take the others' runs away, and is left
# out.
LEAST_SHARE = 0.8


def together(all_series: Sequence[Series]) -> list[Series]:
    """Returns one more series for each metric and setting that six cases or more have in the same
    runs, 15 or more of them: without a unit, 1 at the middle.
    """
    timed = sorted((series for series in all_series if not series.exact), key=_kind)
    joint = (_joint(list(group)) for _, group in groupby(timed, key=_kind))
    return [series for series in joint if series is not None]


def _kind(series: Series) -> tuple[str, str, str, str]:
    last = series.points[-1]
    return last.metric, last.kind, last.setting, last.better


def _run(point: Point) -> tuple[float, str]:
    return point.measured, point.path


def _joint(group: Sequence[Series]) -> Series | None:
    most = max(len(series.points) for series in group)
    members = [series for series in group if len(series.points) >= LEAST_SHARE * most]
    logs = [{_run(point): math.log(point.value) for point in series.points} for series in members]
    runs = sorted(set.intersection(*map(set, logs)))
    if len(members) < FEWEST_CASES or len(runs) < FEWEST:
        return None
    levels = [median([of_run[run] for run in runs]) for of_run in logs]
    like = {_run(point): point for point in members[0].points}
    points = []
    for run in runs:
        value = math.exp(median([of_run[run] - level for of_run, level in zip(logs, levels, strict=True)]))
        points.append(like[run]._replace(case=NAME, kind="time", value=value, centre=value, unit=""))
    return of_points(points)
