"""What the host did at each moment: on one thread, the innermost operator, call, Python frame or
annotation, and whether it was fetching data or waiting.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..tables.trace import Calls, Column, Rows, Spans, Trace
from .launches import SYNCHRONISE
from .steps import STEP

NOTHING = "no recorded host code"
BETWEEN = "Python between operators (no stacks recorded)"
# What a thread did belongs to one of GROUPS, by these codes.
INPUT = 0
WAITING = 1
WORKING = 2
COMPUTING = 3
GROUPS = ("input", "sync", "host", "host work")
# An operator that launches nothing and takes longer, ns, computes on the host; others dispatch.
COMPUTES_NS = 50_000
# Spans that are swept together: memory follows it.
AT_ONCE = 100_000


class Doing(NamedTuple):
    """What one thread did: disjoint moments in order."""

    # ns.
    start: Column
    end: Column
    # Code into `labels`.
    label: Column
    labels: list[str]
    # Of each label: code into GROUPS.
    groups: Column

    def during(self, start: int, end: int) -> list[tuple[int, int]]:
        """Returns (label, ns) of what lies between, in order, without moments that have no span."""
        first, last = np.searchsorted(self.end, start, side="right"), np.searchsorted(self.start, end)
        which = slice(int(first), int(last))
        length = np.minimum(self.end[which], end) - np.maximum(self.start[which], start)
        return list(zip(self.label[which].tolist(), length.tolist(), strict=True))


def of(trace: Trace, lane: int) -> Doing:
    """Returns what a thread did, by a sweep over its spans.

    Spans are nested; where one is not, the later one counts.
    """
    tables: tuple[Spans | Calls, ...] = (trace.notes, trace.frames, trace.operators, trace.calls)
    own = [np.flatnonzero(table.lane == lane) for table in tables]
    start, dur, name = (
        np.concatenate([getattr(table, column)[rows] for table, rows in zip(tables, own, strict=True)])
        for column in ("start", "dur", "name")
    )
    called = np.repeat([table is trace.calls for table in tables], [len(rows) for rows in own])
    computes = np.repeat([table is trace.operators for table in tables], [len(rows) for rows in own])
    computes &= (dur >= COMPUTES_NS) & (len(trace.gpu) > 0)
    launches = np.sort(trace.calls.start[own[-1]])
    computes &= np.searchsorted(launches, start) == np.searchsorted(launches, start + dur, side="right")
    order, end = np.lexsort((-(start + dur), start)), start + dur
    del own, dur
    labels: dict[str, int] = {}
    groups: dict[int, int] = {}
    kinds = {code: kind(trace.names[code]) for code in np.unique(name).tolist()}
    rows = Rows("start", "end", "label")
    stack: list[tuple[int, int, str]] = []  # end, label, operator
    clock = int(start[order[0]]) if len(order) else 0

    def until(moment: int) -> None:
        """Adds what the innermost span did up to then."""
        nonlocal clock
        while stack and stack[-1][0] <= moment:
            last, label, _ = stack.pop()
            if last > clock:
                rows.add((clock, last, label))
                clock = last
        if stack and moment > clock:
            rows.add((clock, moment, stack[-1][1]))
        clock = max(clock, moment)

    for first in range(0, len(order), AT_ONCE):
        some = order[first : first + AT_ONCE]
        columns = (column[some].tolist() for column in (start, end, name, called, computes))
        for begins, ends, code, call, computing in zip(*columns, strict=True):
            until(begins)
            what, group = kinds[code]
            outer = stack[-1] if stack else None
            operator, text = outer[2] if outer else "", trace.names[code]
            if outer and groups[outer[1]] == INPUT:
                label = outer[1]
            else:
                shown = BETWEEN if what == "step" else f"{text} in {operator}" if call and operator else text
                if computing and group == WORKING:
                    shown, group = f"{text} on the host", COMPUTING
                label = labels.setdefault(shown, len(labels))
                groups.setdefault(label, group)
            stack.append((ends, label, operator if call else text))
        rows.flush()
    until(1 << 62)
    return Doing(
        **rows.columns(),
        labels=list(labels),
        groups=np.array([groups[label] for label in labels.values()], dtype=np.int64),
    )


def kind(name: str) -> tuple[str, int]:
    """Returns what a span's name says of it, and its group."""
    if "DataLoader" in name:
        return "input", INPUT
    if SYNCHRONISE.search(name):
        return "sync", WAITING
    if STEP.match(name):
        return "step", WORKING
    return "", WORKING
