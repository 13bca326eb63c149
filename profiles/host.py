"""What the host did at each moment: on one thread, the innermost operator, call, Python frame or annotation, and whether it was fetching data or waiting."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .launches import SYNCHRONISE
from .steps import STEP
from .trace import Calls, Column, Spans, Trace

NOTHING = "no recorded host code"
BETWEEN = "Python between operators (no stacks recorded)"
INPUT, WAITING, WORKING = 0, 1, 2
GROUPS = ("input", "sync", "host")


class Doing(NamedTuple):
    """Disjoint moments of one thread in order. label: code into `labels`; group: code into GROUPS."""

    start: Column
    end: Column
    label: Column
    group: Column
    labels: list[str]

    def during(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """(label, group, ns) of what lies between, in order; moments without a span are not among them."""
        first, last = np.searchsorted(self.end, start, side="right"), np.searchsorted(self.start, end)
        which = slice(int(first), int(last))
        length = np.minimum(self.end[which], end) - np.maximum(self.start[which], start)
        return list(zip(self.label[which].tolist(), self.group[which].tolist(), length.tolist(), strict=True))


def of(trace: Trace, lane: int) -> Doing:
    """A sweep over the thread's spans, which are nested; where one is not, the later one counts."""
    spans: list[tuple[int, int, int, bool]] = []
    tables: tuple[tuple[Spans | Calls, bool], ...] = ((trace.notes, False), (trace.frames, False), (trace.operators, False), (trace.calls, True))
    for table, called in tables:
        rows = np.flatnonzero(table.lane == lane)
        spans += zip(table.start[rows].tolist(), (-table.end[rows]).tolist(), table.name[rows].tolist(), [called] * len(rows), strict=True)
    spans.sort()
    labels: dict[str, int] = {}
    rows_out: list[tuple[int, int, int, int]] = []
    kinds = {code: kind(name) for code, name in enumerate(trace.names)}
    stack: list[tuple[int, int, int, str]] = []  # end, label, group, operator
    clock = spans[0][0] if spans else 0

    def until(moment: int) -> None:
        """What the innermost span did up to then."""
        nonlocal clock
        while stack and stack[-1][0] <= moment:
            end, label, group, _ = stack.pop()
            if end > clock:
                rows_out.append((clock, end, label, group))
                clock = end
        if stack and moment > clock:
            rows_out.append((clock, moment, stack[-1][1], stack[-1][2]))
        clock = max(clock, moment)

    for start, less_end, name, called in spans:
        until(start)
        said, group = kinds[name]
        text = trace.names[name]
        outer = stack[-1] if stack else None
        operator = outer[3] if outer else ""
        if outer and outer[2] == INPUT:
            said, group, text = "", INPUT, trace.names[name]
            label = outer[1]
        elif said == "step":
            label, group = labels.setdefault(BETWEEN, len(labels)), WORKING
        else:
            shown = f"{text} in {operator}" if called and operator else text
            label = labels.setdefault(shown, len(labels))
        stack.append((-less_end, label, group, operator if called else text))
    until(1 << 62)
    columns = np.array(rows_out, dtype=np.int64).reshape(-1, 4).T
    return Doing(columns[0], columns[1], columns[2], columns[3], list(labels))


def kind(name: str) -> tuple[str, int]:
    """What a span's name says of it."""
    if "DataLoader" in name:
        return "input", INPUT
    if SYNCHRONISE.search(name):
        return "sync", WAITING
    if STEP.match(name):
        return "step", WORKING
    return "", WORKING
