"""Who launched what: the host call behind each GPU event, how long launches take to arrive, what
the GPU waited for, how full its queues were.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ..tables.trace import NONE, Calls, Column, Gpu, Mask, Trace
from .timeline import Timeline

GRAPH_LAUNCH = re.compile(r"GraphLaunch", re.IGNORECASE)
LAUNCH = re.compile(r"Launch(?!HostFunc)|Mem(?:cpy|set)", re.IGNORECASE)
SYNCHRONISE = re.compile(r"Synchronize", re.IGNORECASE)
KERNEL_WAIT = 30_000
CAUSES = ("host_wait", "kernel_wait", "other", "unknown")


@dataclass(frozen=True)
class Launches:
    """call: row in `calls` of each event of `gpu`, NONE where the file has no call of its
    correlation; the earliest where it has several.

    graph: which calls launch a CUDA graph.
    """

    gpu: Gpu
    calls: Calls
    call: Column
    graph: Mask

    @property
    def known(self) -> Mask:
        return np.asarray(self.call != NONE)

    @property
    def single(self) -> Mask:
        """Events with a host call that is no graph launch."""
        known = self.known.copy()
        known[known] = ~self.graph[self.call[known]]
        return known

    @property
    def call_start(self) -> Column:
        """Of events with a call; of the others nothing that means anything."""
        return self.calls.start[self.call] if len(self.calls) else np.zeros(len(self.gpu), np.int64)


def of(trace: Trace, gpu: Gpu) -> Launches:
    calls = trace.calls
    graph = trace.named(GRAPH_LAUNCH)[calls.name]
    linked = np.flatnonzero(calls.correlation != NONE)
    order = linked[np.lexsort((calls.start[linked], calls.correlation[linked]))]
    keys = calls.correlation[order]
    at = np.searchsorted(keys, gpu.correlation)
    found = np.full(len(gpu), NONE, np.int64)
    if len(keys):
        inside = at < len(keys)
        hit = inside & (keys[np.minimum(at, len(keys) - 1)] == gpu.correlation) & (gpu.correlation != NONE)
        found[hit] = order[at[hit]]
    return Launches(gpu, calls, found, graph)


@dataclass(frozen=True)
class Idle:
    """A row a gap of the timeline.

    cause: code into CAUSES. event: row of the GPU event that ends it. before: of a host wait, ns
    before the call had started.
    """

    start: Column
    length: Column
    cause: Column
    event: Column
    before: Column

    def charged(self, cause: str) -> tuple[int, int]:
        """Nanoseconds and number of gaps."""
        which = self.cause == CAUSES.index(cause)
        return int(np.sum(self.length[which])), int(np.sum(which))


def idle(timeline: Timeline, launches: Launches) -> Idle:
    """Each gap is charged to the event that ends it."""
    gaps, gpu = timeline.gaps, timeline.gpu
    length = gaps.end - gaps.start
    order = np.argsort(gpu.start, kind="stable")
    event = order[np.searchsorted(gpu.start[order], gaps.end)]
    known = launches.known[event]
    called = np.where(known, launches.call_start[event], 0) if len(event) else length
    host = known & (called > gaps.start)
    cause = np.select([~known, host, length < KERNEL_WAIT], [3, 0, 1], 2)
    before = np.where(host, np.minimum(called, gaps.end) - gaps.start, 0)
    return Idle(gaps.start, length, cause, event, before)


@dataclass(frozen=True)
class Queue:
    """at, length: ns and how many were launched and not begun, after each launch and each start."""

    at: Column
    length: Column

    @property
    def weighted_mean(self) -> float:
        span = int(self.at[-1] - self.at[0])
        return float(np.sum(self.length[:-1] * np.diff(self.at))) / span if span else 0.0


def queues(launches: Launches) -> dict[tuple[int, int], Queue]:
    """By device and stream, of what has a host call of its own: a graph's kernels are launched by
    one.
    """
    single = launches.single
    gpu, called = launches.gpu.rows(single), launches.call_start[single]
    found = {}
    for device, stream in sorted({(int(d), int(s)) for d, s in zip(gpu.device, gpu.stream, strict=True)}):
        own = (gpu.device == device) & (gpu.stream == stream)
        at = np.concatenate([called[own], gpu.start[own]])
        step = np.repeat([1, -1], int(np.sum(own)))
        order = np.lexsort((-step, at))
        found[device, stream] = Queue(at[order], np.cumsum(step[order]))
    return found
