"""What the host did while the GPU was idle: each gap's time by operator, call, frame or data
loader, and the gap's reason.

A gap that ends with work whose launch had not begun is filled from what the launching thread did
until then, and by the launch itself. Gaps are taken many at once: a long trace has millions.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import NamedTuple

import numpy as np

from ..tables.trace import Calls, Column, Mask, Trace
from . import host
from .host import Doing
from .launches import CAUSES, KERNEL_WAIT, Idle, Launches
from .timeline import Timeline

# Why the GPU was idle. host work: the host computed. launch: the host had not issued the work, nor
# was it fetching data, waiting for the GPU when the gap began, setting up, or computing.
BLAME = ("input", "sync", "setup", "host work", "launch", "kernel_wait", "other", "unknown")
# What a program does once: memory from the driver, modules, streams.
SETUP = re.compile(
    r"(?:cuda|hip|cu)(?:Malloc|Free|HostAlloc|MemAlloc|ModuleLoad|LibraryLoad|StreamCreate|EventCreate|GetDeviceProperties|DeviceGet)",
    re.IGNORECASE,
)
# A launch that takes longer loads its kernel first (lazy loading).
LOADING_NS = 1_000_000
# Calls that may return only when the GPU has finished.
WAIT = re.compile(r"Synchronize|Memcpy|QueueFinish|urEventWait", re.IGNORECASE)
# What a gap ends with that no event follows.
LAST = "the end of the last step"
# Gaps that are filled together: memory follows it.
AT_ONCE = 50_000


class Culprit(NamedTuple):
    """What the host did, summed over all gaps of one reason."""

    label: str
    blame: str
    # ns.
    length: int
    gaps: int


class Gap(NamedTuple):
    """One hole in the GPU's work, with what filled it on the host."""

    # ns after the start of all that is accounted for (Facts.wall).
    start: int
    # ns.
    length: int
    # One of BLAME.
    blame: str
    # Name of the event that came after.
    ends: str
    # (what the host did, ns), the longest first.
    filled: tuple[tuple[str, int], ...]


class Culprits(NamedTuple):
    """What all the idle time went into."""

    # The longest first; together they are the idle time.
    ranked: list[Culprit]
    # ns and number of gaps by reason.
    blamed: dict[str, tuple[int, int]]
    # Of each gap: code into BLAME.
    blame: Column
    # What each launching thread did, by its code.
    doing: dict[int, Doing]


def of(trace: Trace, line: Timeline, launched: Launches, idle: Idle) -> Culprits:
    blame = np.zeros(len(idle.start), np.int64)
    lengths: dict[tuple[str, str], int] = defaultdict(int)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for cause in CAUSES[1:]:
        rows = idle.cause == CAUSES.index(cause)
        blame[rows] = BLAME.index(cause)
        if rows.any():
            label = (f"nothing of the host: {cause}", cause)
            lengths[label], counts[label] = int(np.sum(idle.length[rows])), int(np.sum(rows))
    hosted = np.flatnonzero(idle.cause == CAUSES.index("host_wait"))
    call = launched.call[idle.event[hosted]]
    lanes = launched.calls.lane[call]
    doing = {int(lane): host.of(trace, int(lane)) for lane in np.unique(lanes)}
    waits = trace.calls.rows(trace.named(WAIT)[trace.calls.name])
    for lane, did in doing.items():
        own = lanes == lane
        ends_wait = Waits(waits.rows(waits.lane == lane))
        for first in range(0, int(np.sum(own)), AT_ONCE):
            rows = hosted[own][first : first + AT_ONCE]
            called = launched.calls.rows(call[own][first : first + AT_ONCE])
            blame[rows] = fill(trace, did, ends_wait, idle, rows, called, lengths, counts)
    ranked = sorted(
        (Culprit(label, why, ns, counts[label, why]) for (label, why), ns in lengths.items() if ns),
        key=lambda culprit: -culprit.length,
    )
    blamed = {
        why: (int(np.sum(idle.length[blame == code])), int(np.sum(blame == code)))
        for code, why in enumerate(BLAME)
    }
    return Culprits(ranked, blamed, blame, doing)


class Waits:
    """One thread's calls that may wait for the GPU."""

    def __init__(self, calls: Calls) -> None:
        order = np.argsort(calls.start, kind="stable")
        self.start, self.end = calls.start[order], calls.end[order]

    def hold(self, moments: Column) -> Mask:
        """Returns at which of the moments the thread was in such a call."""
        last = np.searchsorted(self.start, moments, side="right") - 1
        inside = last >= 0
        inside[inside] = self.end[last[inside]] >= moments[inside]
        return inside


def fill(
    trace: Trace,
    did: Doing,
    waits: Waits,
    idle: Idle,
    rows: Column,
    calls: Calls,
    lengths: dict[tuple[str, str], int],
    counts: dict[tuple[str, str], int],
) -> Column:
    """Adds these gaps of one thread to the sums by label; returns the reason of each.

    `calls` are their launches.
    """
    start, length, before = idle.start[rows], idle.length[rows], idle.before[rows]
    end = start + before
    late = np.minimum(length - before, calls.dur)
    returned = length - before - late
    first, last = np.searchsorted(did.end, start, side="right"), np.searchsorted(did.start, end)
    count = np.maximum(0, last - first)
    gap = np.repeat(np.arange(len(rows)), count)
    leaf = np.arange(int(np.sum(count))) - np.repeat(np.cumsum(count) - count - first, count)
    ns = np.minimum(did.end[leaf], end[gap]) - np.maximum(did.start[leaf], start[gap])
    label = did.label[leaf]

    def of_gap(which: Mask) -> Column:
        sums = np.zeros(len(rows), np.int64)
        np.add.at(sums, gap[which], ns[which])
        return sums

    setting_up = np.array([SETUP.match(name) is not None for name in did.labels], dtype=bool)
    loading = np.where(late > LOADING_NS, late, 0)
    conditions = [
        2 * of_gap(did.groups[label] == host.INPUT) >= length,
        2 * (of_gap(setting_up[label]) + loading) >= length,
        2 * of_gap(did.groups[label] == host.COMPUTING) >= length,
        (2 * returned >= length) & (returned >= KERNEL_WAIT),
        waits.hold(start),
    ]
    reasons = [BLAME.index(why) for why in ("input", "setup", "host work", "other", "sync")]
    blame = np.select(conditions, reasons, BLAME.index("launch"))
    add(lengths, counts, did.labels, label, blame[gap], ns, gap)
    rest = before - of_gap(np.ones(len(ns), dtype=bool))
    every = np.arange(len(rows))
    add(lengths, counts, [host.NOTHING], np.zeros(len(rows), np.int64), blame, rest, every)
    used = np.unique(calls.name)
    by_name = np.searchsorted(used, calls.name)
    add(lengths, counts, [latency(trace, int(code)) for code in used], by_name, blame, late, every)
    add(lengths, counts, [queued(trace, int(code)) for code in used], by_name, blame, returned, every)
    return blame


def add(
    lengths: dict[tuple[str, str], int],
    counts: dict[tuple[str, str], int],
    labels: list[str],
    label: Column,
    blame: Column,
    ns: Column,
    gap: Column,
) -> None:
    """Adds up ns and gaps by label and reason; a gap counts once for each of its labels."""
    some = ns > 0
    key = label[some] * len(BLAME) + blame[some]
    keys, inverse = np.unique(key, return_inverse=True)
    totals = np.zeros(len(keys), np.int64)
    np.add.at(totals, inverse, ns[some])
    once = np.unique(inverse * (int(gap.max(initial=0)) + 1) + gap[some]) // (int(gap.max(initial=0)) + 1)
    often = np.bincount(once, minlength=len(keys))
    for code, total, number in zip(keys.tolist(), totals.tolist(), often.tolist(), strict=True):
        entry = labels[code // len(BLAME)], BLAME[code % len(BLAME)]
        lengths[entry] += total
        counts[entry] += number


def latency(trace: Trace, call: int) -> str:
    return f"launch latency of {trace.names[call]}"


def queued(trace: Trace, call: int) -> str:
    return f"nothing more of the host: {trace.names[call]} had returned"


def gap(
    trace: Trace,
    line: Timeline,
    launched: Launches,
    idle: Idle,
    culprits: Culprits,
    row: int,
    wall: tuple[int, int],
) -> Gap:
    """Returns one gap, with what filled it. wall: start and end of all that is accounted for."""
    start, length, event, before = (
        int(column[row]) for column in (idle.start, idle.length, idle.event, idle.before)
    )
    shares: dict[str, int] = defaultdict(int)
    if CAUSES[idle.cause[row]] == "host_wait":
        call = int(launched.call[event])
        did = culprits.doing[int(launched.calls.lane[call])]
        for label, ns in did.during(start, start + before):
            shares[did.labels[label]] += ns
        shares[host.NOTHING] += before - sum(shares.values())
        name, late = int(launched.calls.name[call]), min(length - before, int(launched.calls.dur[call]))
        shares[latency(trace, name)] += late
        shares[queued(trace, name)] += length - before - late
    filled = sorted(((label, ns) for label, ns in shares.items() if ns), key=lambda pair: -pair[1])
    return Gap(
        start - wall[0],
        length,
        BLAME[culprits.blame[row]],
        trace.names[line.gpu.name[event]] if start < line.end else LAST,
        tuple(filled),
    )
