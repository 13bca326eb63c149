"""What a CPU did where there is no GPU: each operator's own time, and what steps went where."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np

from ..tables.trace import Trace
from . import host, kinds

# Parts of the steps in the order of the bar; kinds that are none of these compute.
PARTS = ("compute", "layout", "framework", "input", "outside operators")
# The part of a kind, if it is not computing.
PART = {"layout and copies": "layout", kinds.FRAMEWORK: "framework", "data loading": "input"}


class Own(NamedTuple):
    """An operator without what it calls, over all threads."""

    name: str
    # How often; 0 for what is no operator.
    events: int
    # ns.
    length: int
    # Whether it is an annotation alone: a name for a part of the program, which does nothing.
    frame: bool = False


def own(trace: Trace) -> list[Own]:
    """Returns the operators by their own time, the longest first."""
    lengths: dict[str, int] = defaultdict(int)
    counts = Counter(
        trace.names[code]
        for table in (trace.operators, trace.notes, trace.frames, trace.calls)
        for code in table.name.tolist()
    )
    for lane in np.unique(trace.operators.lane).tolist():
        doing = host.of(trace, lane)
        for label, length in zip(doing.label.tolist(), (doing.end - doing.start).tolist(), strict=True):
            lengths[doing.labels[label]] += length
    if trace.by_node:
        # Its sessions load and plan as well, which is no operator's time.
        nodes = {trace.names[code] for code in trace.operators.name.tolist()}
        lengths = {name: length for name, length in lengths.items() if name in nodes}
    working = {trace.names[code] for table in (trace.operators, trace.calls) for code in table.name.tolist()}
    annotations = {trace.names[code] for code in trace.notes.name.tolist()} - working
    return sorted(
        (
            Own(name, counts[name], length, name in annotations and "DataLoader" not in name)
            for name, length in lengths.items()
        ),
        key=lambda row: -row.length,
    )


def parts(rows: list[Own], whole: int) -> dict[str, int]:
    """Returns ns by PARTS, together the whole; of several threads the sum, which may exceed it."""
    lengths = dict.fromkeys(PARTS, 0)
    for row in rows:
        if not row.frame:
            lengths[PART.get(kinds.of(row.name), "compute")] += row.length
    lengths["outside operators"] = max(0, whole - sum(lengths.values()))
    return lengths
