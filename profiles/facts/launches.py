"""Who launched what: the host call behind each GPU event, how long launches take to arrive, what
the GPU waited for, how full its queues were.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ..tables.trace import NONE, Calls, Column, Gpu, Mask, Trace
from .intervals import Intervals
from .timeline import Timeline

# Names of host calls: of graph launches, of all that put work on a GPU, of those that wait for it.
GRAPH_LAUNCH = re.compile(r"GraphLaunch", re.IGNORECASE)
LAUNCH = re.compile(r"Launch(?!HostFunc)|Mem(?:cpy|set)", re.IGNORECASE)
SYNCHRONISE = re.compile(r"Synchronize|QueueFinish|urEventWait", re.IGNORECASE)
# ns: a shorter gap before work that was launched in time is the GPU's own between two kernels.
KERNEL_WAIT = 30_000
# Why the GPU was idle, as far as launches tell (docs/traces.md).
CAUSES = ("host_wait", "kernel_wait", "other", "unknown")


@dataclass(frozen=True)
class Launches:
    """GPU events with the host calls that launched them."""

    gpu: Gpu
    calls: Calls
    # Row in `calls` of each event, the earliest of its correlation; NONE where there is none.
    call: Column
    # Which calls launch a CUDA graph.
    graph: Mask

    @property
    def known(self) -> Mask:
        return np.asarray(self.call != NONE)

    @property
    def single(self) -> Mask:
        """Returns which events have a host call that is no graph launch."""
        known = self.known.copy()
        known[known] = ~self.graph[self.call[known]]
        return known

    @property
    def call_start(self) -> Column:
        """Returns when the calls began (ns); of events without one it means nothing."""
        return self.calls.start[self.call] if len(self.calls) else np.zeros(len(self.gpu), np.int64)


def of(trace: Trace, gpu: Gpu) -> Launches:
    calls = trace.calls
    graph = trace.named(GRAPH_LAUNCH)[calls.name]
    linked = np.flatnonzero(calls.correlation != NONE)
    order = linked[np.lexsort((calls.start[linked], calls.correlation[linked]))]
    keys = calls.correlation[order]
    place = np.searchsorted(keys, gpu.correlation)
    call = np.full(len(gpu), NONE, np.int64)
    if len(keys):
        inside = place < len(keys)
        hit = inside & (keys[np.minimum(place, len(keys) - 1)] == gpu.correlation) & (gpu.correlation != NONE)
        call[hit] = order[place[hit]]
    return Launches(gpu, calls, call, graph)


@dataclass(frozen=True)
class Idle:
    """The gaps of a timeline, one a row."""

    # ns.
    start: Column
    length: Column
    # Code into CAUSES.
    cause: Column
    # Row of the GPU event that ends it.
    event: Column
    # Of a host wait: ns before the call had started.
    before: Column

    def charged(self, cause: str) -> tuple[int, int]:
        """Returns ns and number of the gaps with this cause."""
        which = self.cause == CAUSES.index(cause)
        return int(np.sum(self.length[which])), int(np.sum(which))


def idle(timeline: Timeline, launches: Launches, start: int | None = None, end: int | None = None) -> Idle:
    """Returns the gaps, each charged to the event that ends it.

    start, end: ns; where they lie before or after the window, what is between is a gap too. That
    after it is charged to the last event, as if it had been launched once more at its end.
    """
    gaps, gpu = timeline.gaps, timeline.gpu
    if start is not None and len(gpu) and start < timeline.start:
        gaps = Intervals(np.insert(gaps.start, 0, start), np.insert(gaps.end, 0, timeline.start))
    last = timeline.end if end is None or not len(gpu) else end
    if tail := last > timeline.end:
        gaps = Intervals(np.append(gaps.start, timeline.end), np.append(gaps.end, last))
    length = gaps.end - gaps.start
    order = np.argsort(gpu.start, kind="stable")
    place = np.searchsorted(gpu.start[order], gaps.end)
    event = order[np.minimum(place, len(order) - 1)] if len(order) else place
    known = launches.known[event]
    called = np.where(known, launches.call_start[event], 0) if len(event) else length
    if tail:
        called[-1] = gaps.end[-1]
    host = known & (called > gaps.start)
    cause = np.select([~known, host, length < KERNEL_WAIT], [3, 0, 1], 2)
    before = np.where(host, np.minimum(called, gaps.end) - gaps.start, 0)
    return Idle(gaps.start, length, cause, event, before)


@dataclass(frozen=True)
class Queue:
    """How full a stream's queue was."""

    # ns of each launch and each start, in order.
    moments: Column
    # How many were launched and not begun after each.
    length: Column

    @property
    def weighted_mean(self) -> float:
        span = int(self.moments[-1] - self.moments[0])
        return float(np.sum(self.length[:-1] * np.diff(self.moments))) / span if span else 0.0


def queues(launches: Launches) -> dict[tuple[int, int], Queue]:
    """Returns the queues by device and stream, of what has a host call of its own: the kernels of a
    graph are launched by one.
    """
    single = launches.single
    gpu, called = launches.gpu.rows(single), launches.call_start[single]
    by_stream = {}
    for device, stream in sorted({(int(d), int(s)) for d, s in zip(gpu.device, gpu.stream, strict=True)}):
        own = (gpu.device == device) & (gpu.stream == stream)
        moments = np.concatenate([called[own], gpu.start[own]])
        step = np.repeat([1, -1], int(np.sum(own)))
        order = np.lexsort((-step, moments))
        by_stream[device, stream] = Queue(moments[order], np.cumsum(step[order]))
    return by_stream
