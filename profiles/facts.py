"""All that follows from a trace, each computed once when it is first asked for."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from . import host, launches, operators, steps, timeline
from .host import Doing
from .launches import CAUSES, Idle, Launches
from .steps import Step
from .timeline import Timeline
from .trace import Column, Trace

# Of an idle moment: why. launch: the host had not issued the work, nor was it fetching data, waiting for the GPU when the gap began, or setting up.
BLAME = ("input", "sync", "setup", "launch", "kernel_wait", "other", "unknown")
# What a program does once: memory from the driver, modules, streams. A launch that takes longer than this loads its kernel first (lazy loading).
SETUP = re.compile(r"(?:cuda|hip|cu)(?:Malloc|Free|HostAlloc|MemAlloc|ModuleLoad|LibraryLoad|StreamCreate|EventCreate|GetDeviceProperties|DeviceGet)", re.IGNORECASE)
LOADING_NS = 1_000_000
# Calls that may return only when the GPU has finished.
WAIT = re.compile(r"Synchronize|Memcpy", re.IGNORECASE)


class Culprit(NamedTuple):
    """What the host did while the GPU was idle, summed over all gaps. ns."""

    label: str
    blame: str
    length: int
    gaps: int


class Gap(NamedTuple):
    """One hole in the GPU's work, with what filled it on the host, the longest first (label, ns). start: from the window's."""

    start: int
    length: int
    blame: str
    before: str
    filled: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Facts:
    """Of one device of one trace."""

    trace: Trace

    @cached_property
    def line(self) -> Timeline:
        return timeline.of(self.trace)

    @cached_property
    def launched(self) -> Launches:
        return launches.of(self.trace, self.line.gpu)

    @cached_property
    def idle(self) -> Idle:
        return launches.idle(self.line, self.launched)

    @cached_property
    def behind(self) -> Column:
        """Operator of each GPU event."""
        return operators.behind(self.trace.operators, self.launched)

    @cached_property
    def steps(self) -> list[Step]:
        return steps.of(self.trace, self.line)

    @cached_property
    def doing(self) -> dict[int, Doing]:
        """Of each thread that launched work."""
        calls = self.launched.calls
        used = np.unique(calls.lane[self.launched.call[self.launched.known]])
        return {int(lane): host.of(self.trace, int(lane)) for lane in used}

    @cached_property
    def gaps(self) -> list[Gap]:
        """Every gap in the order of time, with its culprits."""
        found = []
        waiting = self._waits()
        for start, length, cause, event, before in zip(
            *(column.tolist() for column in (self.idle.start, self.idle.length, self.idle.cause, self.idle.event, self.idle.before)), strict=True
        ):
            ends = self.trace.names[self.line.gpu.name[event]]
            at = start - self.line.start
            if CAUSES[cause] != "host_wait":
                found.append(Gap(at, length, CAUSES[cause], ends, ()))
                continue
            call = int(self.launched.call[event])
            lane = int(self.launched.calls.lane[call])
            shares: dict[str, int] = defaultdict(int)
            groups: dict[int, int] = defaultdict(int)
            doing = self.doing[lane]
            for label, group, ns in doing.during(start, start + before):
                shares[doing.labels[label]] += ns
                groups[group] += ns
            if rest := before - sum(shares.values()):
                shares[host.NOTHING] += rest
            if late := length - before:
                shares[f"launch latency of {self.trace.names[self.launched.calls.name[call]]}"] += late
            setting_up = sum(ns for label, ns in shares.items() if SETUP.match(label)) + (late if late > LOADING_NS else 0)
            if 2 * groups[host.INPUT] >= length:
                blame = "input"
            elif 2 * setting_up >= length:
                blame = "setup"
            elif waiting.holds(lane, start):
                blame = "sync"
            else:
                blame = "launch"
            found.append(Gap(at, length, blame, ends, tuple(sorted(shares.items(), key=lambda one: -one[1]))))
        return found

    @cached_property
    def blamed(self) -> dict[str, int]:
        """Idle ns by reason; together they are the idle time."""
        found = dict.fromkeys(BLAME, 0)
        for gap in self.gaps:
            found[gap.blame] += gap.length
        return found

    @cached_property
    def culprits(self) -> list[Culprit]:
        """What filled the gaps, the longest first; together they are the idle time."""
        lengths: dict[tuple[str, str], int] = defaultdict(int)
        counts: dict[tuple[str, str], int] = defaultdict(int)
        for gap in self.gaps:
            for label, ns in gap.filled or ((f"nothing of the host: {gap.blame}", gap.length),):
                lengths[label, gap.blame] += ns
                counts[label, gap.blame] += 1
        return sorted((Culprit(label, blame, ns, counts[label, blame]) for (label, blame), ns in lengths.items()), key=lambda one: -one.length)

    @property
    def graph_share(self) -> float:
        """Of GPU events, how many came under a CUDA graph's launch."""
        known = self.launched.known
        return float(np.sum(self.launched.graph[self.launched.call[known]])) / len(self.line.gpu) if len(self.line.gpu) else 0.0

    def _waits(self) -> Waits:
        """Of every thread."""
        calls = self.trace.calls
        rows = np.flatnonzero(self.trace.named(WAIT)[calls.name])
        return Waits(calls.lane[rows], calls.start[rows], calls.end[rows])


class Waits:
    """Calls that return when the GPU has finished: synchronisations, and copies that the host waits for."""

    def __init__(self, lane: Column, start: Column, end: Column) -> None:
        order = np.lexsort((start, lane))
        self.rows = {int(one): (start[order][lane[order] == one], end[order][lane[order] == one]) for one in np.unique(lane)}

    def holds(self, lane: int, moment: int) -> bool:
        """Whether that thread was in such a call then."""
        if lane not in self.rows:
            return False
        start, end = self.rows[lane]
        at = int(np.searchsorted(start, moment, side="right")) - 1
        return at >= 0 and bool(end[at] >= moment)
