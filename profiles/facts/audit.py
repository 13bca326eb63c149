"""Events of a GPU that cannot be: no device did what the file says of them. They are left out of
all figures, counted, and said with what the figures would be with them (findings/trust.py).

What is only unlikely stays. Each rule was tried on the real traces of the tests, of which it takes
nothing (tests/profiles/facts/test_audit.py).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..tables.trace import NONE, Column, Gpu, Mask, Trace
from . import launches, timeline
from .launches import GRAPH_LAUNCH

# ns: a longer event is an overflow of the profiler's clock.
YEAR_NS = 365 * 24 * 3600 * 10**9
# ns that an event may begin before its own launch: the clocks of host and GPU are set by each other
# to a few us.
JITTER_NS = 20_000
# ns before its own launch at which an event is of another time.
EARLY_NS = 1_000_000
# An event is far from all that the host did if it is further than that takes, so many times over,
# and further than this, ns.
FAR_TIMES, FAR_NS = 10, 1_000_000_000
# Share of the events that may be wrong: of more the clock is, and not the events.
FEW = 0.05
# An event lies over so many that were queued behind it: the next one or two may begin before its
# end (programmatic dependent launch), others may not.
COVERED = 3
# It is also so many times as long as others of its stream: work that runs side by side in one queue
# is alike.
LONGER = 10
# Calls that launch one kernel.
KERNEL_LAUNCH = re.compile(r"Launch\w*Kernel|KernelLaunch", re.IGNORECASE)


class Exclusion(NamedTuple):
    """Events that are left out, for one reason."""

    why: str
    events: int
    # ns, summed.
    length: int
    # Whether the device did something at another time: what is left is then not all.
    hides: bool


class TraceAudit(NamedTuple):
    """What of a trace can be."""

    # The trace without the events that cannot be.
    trace: Trace
    excluded: tuple[Exclusion, ...]
    # ns of the window and of the busy time with them; 0 where nothing is left out.
    window: int
    busy: int
    # Launches of a kernel, before the last GPU event, of which the file has no kernel; and all.
    unanswered: int
    launched: int


def of(trace: Trace) -> TraceAudit:
    """Returns what of a trace can be."""
    answered = _answered(trace)
    if not len(trace.gpu) or trace.source == "tensorrt":
        return TraceAudit(trace, (), 0, 0, *answered)
    gpu, excluded = trace.gpu, list[Exclusion]()
    for why, hides, rule in RULES:
        if len(gpu) and (wrong := rule(replace(trace, gpu=gpu))).any():
            excluded.append(Exclusion(why, int(np.sum(wrong)), int(np.sum(gpu.dur[wrong])), hides))
            gpu = gpu.rows(~wrong)
    if not excluded:
        return TraceAudit(trace, (), 0, 0, *answered)
    before = timeline.of(trace)
    return TraceAudit(replace(trace, gpu=gpu), tuple(excluded), before.window, before.busy.length, *answered)


def _answered(trace: Trace) -> tuple[int, int]:
    """Returns how many launches of a kernel have none in the file, and how many there are."""
    calls = trace.calls
    which = trace.named(KERNEL_LAUNCH)[calls.name] & (calls.correlation != NONE)
    which &= ~trace.named(GRAPH_LAUNCH)[calls.name]
    if len(trace.gpu):  # what was launched last may run after the profiler's end
        which &= calls.start < trace.gpu.start.max()
    return int(np.sum(which & ~np.isin(calls.correlation, trace.gpu.correlation))), int(np.sum(which))


def _copies(trace: Trace) -> Mask:
    """Returns which events are in the file once more, in every column."""
    gpu = trace.gpu
    again = np.zeros(len(gpu), dtype=bool)
    # All columns only of those that share start and length with another: a long trace has millions.
    order = np.lexsort((gpu.dur, gpu.start))
    alike = (gpu.start[order[1:]] == gpu.start[order[:-1]]) & (gpu.dur[order[1:]] == gpu.dur[order[:-1]])
    if not alike.any():
        return again
    rows = order[np.concatenate([alike, [False]]) | np.concatenate([[False], alike])]
    columns = np.stack(list(vars(gpu.rows(rows)).values()))
    within = np.lexsort(columns)
    same = np.all(columns[:, within[1:]] == columns[:, within[:-1]], axis=0)
    again[rows[within[1:][same]]] = True
    return again


def _years(trace: Trace) -> Mask:
    return np.asarray(trace.gpu.dur > YEAR_NS)


def _covering(trace: Trace) -> Mask:
    """Returns which events last over several that were queued behind them on the same stream."""
    gpu = trace.gpu
    launched = launches.of(trace, gpu)
    by_graph = np.zeros(len(gpu), dtype=bool)  # whose branches share the stream of its launch
    by_graph[launched.known] = launched.graph[launched.call[launched.known]]
    wrong = np.zeros(len(gpu), dtype=bool)
    for rows in _by_stream(gpu):
        start, end = gpu.start[rows], gpu.end[rows]
        later = np.searchsorted(start, end) - np.arange(len(rows)) - 1
        wrong[rows] = (later >= COVERED) & (gpu.dur[rows] > LONGER * np.median(gpu.dur[rows]))
    return _few(wrong & ~by_graph & (gpu.node == NONE) & (gpu.stream != NONE))


def _by_stream(gpu: Gpu) -> list[Column]:
    """Returns the rows of each stream, in the order of their starts."""
    order = np.lexsort((gpu.start, gpu.stream, gpu.device))
    device, stream = gpu.device[order], gpu.stream[order]
    borders = np.flatnonzero((device[1:] != device[:-1]) | (stream[1:] != stream[:-1])) + 1
    return np.split(order, borders)


def _far(trace: Trace) -> Mask:
    """Returns which events are far from all that the host did."""
    host = [table for table in (trace.calls, trace.operators, trace.notes) if len(table)]
    if not host:
        return np.zeros(len(trace.gpu), dtype=bool)
    first = min(int(table.start.min()) for table in host)
    last = max(int(table.end.max()) for table in host)
    margin = max(FAR_NS, FAR_TIMES * (last - first))
    return _few((trace.gpu.end < first - margin) | (trace.gpu.start > last + margin))


def _early(trace: Trace) -> Mask:
    """Returns which events begin long before their own launch."""
    launched = launches.of(trace, trace.gpu)
    return _few(launched.known & (launched.call_start - trace.gpu.start > EARLY_NS))


def _few(wrong: Mask) -> Mask:
    """Returns the events that are wrong, none where they are no exception."""
    return wrong if np.sum(wrong) <= max(1, FEW * len(wrong)) else np.zeros(len(wrong), dtype=bool)


RULES = (
    ("are copies of others, alike in all", False, _copies),
    ("last more than a year: a clock overflowed", True, _years),
    ("lie far from all that the host did: at time 0, or by another clock", True, _far),
    ("begin over 1 ms before their own launch", True, _early),
    ("last over several that were queued behind them on their stream", True, _covering),
)
