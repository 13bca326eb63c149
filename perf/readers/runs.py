"""One side of a gate from one file, from several runs of the same code, or from a folder of them.

Runs are put together case by case: from three on, each is a block, so that the interval knows how
runs differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..stats.estimates import fmean
from ..terms.reasons import Misuse, Unreadable
from . import criterion, reading
from .side import UNREADABLE, Known, Sample, Side, differs

# From so many runs on, each is a block.
FEWEST = 3


def side(paths: Sequence[Path]) -> Side:
    """Returns what these files say together. A folder stands for the results files right in it, and
    that of criterion for its newest measurements.

    Raises Misuse, and Unreadable for what holds no results, or none that go together.
    """
    sides, notes = list[Side](), list[str]()
    for path in paths:
        try:
            if not path.is_dir():
                sides.append(_newest(path, notes))
            elif criterion.is_folder(path) and not any(each.is_file() for each in path.iterdir()):
                sides.append(criterion.read_folder(path))
            else:
                sides += _of_folder(path, notes)
        except OSError as error:
            raise Unreadable(f"{path}: {error.strerror}") from None
    return replace(together(sides), notes=tuple(notes))


def _newest(path: Path, notes: list[str]) -> Side:
    runs = reading.read(path)
    if len(runs) > 1:
        notes.append(f"{path}: the newest of {len(runs)} runs counts (hotlap history looks at all)")
    return runs[-1]


def _of_folder(path: Path, notes: list[str]) -> list[Side]:
    sides, others = list[Side](), list[str]()
    for file in sorted(each for each in path.iterdir() if each.is_file()):
        try:
            sides.append(_newest(file, notes))
        except Unreadable as error:
            others.append(str(error).removeprefix(f"{path}/"))
    if not sides:
        example = f", such as {others[0]}" if others else ""
        raise Unreadable(f"{path}: a folder without results{example}")
    if others:
        notes.append(f"{path}: {len(others)} files hold no results, such as {others[0]}")
    return sides


def together(sides: Sequence[Side]) -> Side:
    """Returns several runs as one side. Raises Unreadable where they are not of the same code, tool
    and machine, or where one is there twice.
    """
    first, *others = sides
    if not others:
        return first
    for other in others:
        if other.tool != first.tool:
            raise Unreadable(
                f"{other.path}: results of {other.tool}, and those of {first.path} are"
                f" {first.tool}'s: the runs of a side come from one tool"
            )
        if set(other.digests) & {each for side in sides if side is not other for each in side.digests}:
            raise Misuse(f"{other.path}: the same bytes as another run of its side; a copy is no run")
    names = dict.fromkeys(name for side in sides for name in side.cases)
    cases = {
        name: _case([(side.path, side.cases[name]) for side in sides if name in side.cases], len(sides))
        for name in names
    }
    moments = [side.measured for side in sides if side.measured]
    return Side(
        first.path.parent if len({side.path.parent for side in sides}) == 1 else first.path,
        cases,
        min(moments, default=""),
        tool=first.tool,
        runs=len(sides),
        moments=tuple(moments) if len(moments) == len(sides) else (),
        digests=tuple(each for side in sides for each in side.digests),
    )


def _case(runs: Sequence[tuple[Path, Known]], count: int) -> Known:
    """Returns what several runs say of one case; of one that is not in all of them, that.

    count: how many runs there are. Raises Unreadable.
    """
    (_, first), *others = runs
    for path, other in others:
        if other.commit != first.commit:
            raise Unreadable(
                f"{path}: of commit {other.commit[:12] or 'unknown'}, and another run of its side of"
                f" {first.commit[:12] or 'unknown'}: the runs of a side are of one commit"
            )
        if blocking := differs(first, other).blocking:
            name, (mine, theirs) = next(iter(blocking.items()))
            raise Unreadable(f"{path}: {name} is {theirs}, and {mine} in another run of its side")
    if (bad := next((known for _, known in runs if not known.good), None)) is not None:
        return bad
    if len(runs) < count:
        return replace(first, status=UNREADABLE, reason=f"stands in {len(runs)} of {count} runs", metrics={})
    known = [each for _, each in runs]
    metrics = {
        name: _sample([each.metrics[name] for each in known])
        for name in first.metrics
        if all(name in each.metrics for each in known)
    }
    counters = {
        name: max(each.counters[name] for each in known)
        for name in first.counters
        if all(name in each.counters for each in known)
    }
    return replace(first, metrics=metrics, counters=counters)


def _sample(runs: Sequence[Sample]) -> Sample:
    """Returns one metric of several runs. Raises Unreadable."""
    first = runs[0]
    if any((run.unit, run.paced, run.better) != (first.unit, first.paced, first.better) for run in runs):
        raise Unreadable("the runs of a side have a metric in different units, or only one has a pace")
    if len(runs) == 1:
        return first
    centre = math.exp(fmean([math.log(run.centre) for run in runs]))
    if len(runs) >= FEWEST:
        logs = [fmean(run.logs) if run.paced else math.log(run.centre) for run in runs]
        return Sample(first.unit, first.better, centre, tuple(logs), paced=first.paced, of_runs=True)
    errors = [run.error for run in runs if run.error is not None]
    if len(errors) == len(runs):
        error = math.sqrt(fmean([error**2 for error in errors]) / len(runs))
        return replace(first, centre=centre, error=error, freedom=min(run.freedom for run in runs), blocks=())
    logs = [log for run in runs for log in run.logs]
    return Sample(first.unit, first.better, centre, tuple(logs), paced=first.paced)


def refuse_shared(base: Side, head: Side, paths: tuple[Sequence[Path], Sequence[Path]]) -> None:
    """Raises Misuse where a file stands on both sides, by its name or as a copy."""
    for mine in paths[0]:
        for theirs in paths[1]:
            if mine.samefile(theirs):
                raise Misuse(f"{mine} and {theirs} are one file, which never differs from itself; name two")
    if set(base.digests) & set(head.digests):
        raise Misuse(
            f"{base.path} and {head.path} hold the same bytes, so nothing was measured twice; measure HEAD"
        )
