"""The one timing loop. It runs in the worker and knows a step, inputs that rotate, and a clock.

A turn: one call that re-warms the caches after another entrant's turn (kept apart), then `calls`
calls between two readings of the clock. On CUDA each call lies between two events and the turn's
time is their sum, so launch gaps of the host are not counted twice.
"""

from __future__ import annotations

import math
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

# Bound when the worker starts: what a model's code puts in their place later times nothing.
from time import get_clock_info, perf_counter, process_time
from typing import Any

import msgspec

from ..terms.contract import Step

# Samples of a window, and windows whose medians must agree.
WINDOW = 8
WINDOWS = 3
# How far the medians of three windows may lie apart, in median absolute deviations of the samples
# from their own window's median: steady normal or log-normal samples stay within 3 in 95 %,
# exponential ones in 90 % (simulated). One would turn away every second steady try.
SPREADS = 3
# Windows that are tried whatever the cap.
LEAST_WINDOWS = 6
# First calls, which are not timed.
LEAST_CALLS = 3
# Samples of which the fastest says how many calls a sample needs.
TRIES = 5


class Turn(msgspec.Struct, frozen=True):
    """One sample: `calls` calls between two readings of the clock."""

    # Seconds of the call that re-warmed the caches; not part of the sample.
    first_s: float
    # Mean seconds of a call.
    call_s: float
    calls: int
    # CPU seconds of the process a call.
    cpu_s: float
    # Involuntary context switches of all threads.
    switches: int
    # Moves of the main thread between cores.
    migrations: int
    # Minor page faults of the process.
    faults: int


class WarmUp(msgspec.Struct, frozen=True):
    """How a warm-up ended: calls a sample, whether samples agreed, seconds in all and a call."""

    calls: int
    steady: bool
    spent_s: float
    call_s: float


def host_clock(step: Step, feed: Sequence[Any]) -> tuple[float, Any]:
    """Seconds for all calls of the feed, synchronised once at the end, and the last outputs."""
    call, synchronize = step.call, step.synchronize
    outputs = None
    start = perf_counter()
    for inputs in feed:
        outputs = call(inputs)
    synchronize()
    return perf_counter() - start, outputs


def event_clock(step: Step, feed: Sequence[Any]) -> tuple[float, Any]:
    """Seconds and outputs as `host_clock` has them, by CUDA events around each call; for steps that
    launch on torch's current stream.

    What a step does between calls is outside of them.
    """
    import torch

    new: Any = torch.cuda.Event
    pairs = [(new(enable_timing=True), new(enable_timing=True)) for _ in feed]
    for pair in pairs:
        for event in pair:
            event.record()  # the first record makes the event, which must not be timed
    outputs = None
    for inputs, (start, end) in zip(feed, pairs, strict=True):
        step.between()
        start.record()
        outputs = step.call(inputs)
        end.record()
    step.synchronize()
    return sum(start.elapsed_time(end) for start, end in pairs) / 1e3, outputs


Clock = Callable[[Step, Sequence[Any]], tuple[float, Any]]


def take_turn(step: Step, feed: Sequence[Any], clock: Clock) -> tuple[Turn, Any]:
    """One sample over feed[1:]; feed[0] re-warms.

    Returns the last outputs with it, so that they can be checked.
    """
    first_s, _ = clock(step, feed[:1])
    moved, before, cpu = migrations(), resource.getrusage(resource.RUSAGE_SELF), process_time()
    spent, outputs = clock(step, feed[1:])
    cpu, after = process_time() - cpu, resource.getrusage(resource.RUSAGE_SELF)
    return (
        Turn(
            first_s=first_s,
            call_s=spent / (len(feed) - 1),
            calls=len(feed) - 1,
            cpu_s=cpu / (len(feed) - 1),
            switches=after.ru_nivcsw - before.ru_nivcsw,
            migrations=migrations() - moved,
            faults=after.ru_minflt - before.ru_minflt,
        ),
        outputs,
    )


def warm_up(
    step: Step,
    rotate: Callable[[int], list[Any]],
    clock: Clock,
    sample_s: float,
    longest_s: float,
    cap_s: float,
) -> WarmUp:
    """Calls until three consecutive windows of 8 samples agree in their medians, or until cap_s and
    6 windows (then not steady).

    An undisturbed sample lasts at least sample_s (never under 1 ms or 1000 times the clock's
    resolution) and, if one call allows it, at most longest_s. Undisturbed, that is by the fastest
    of several tries: a call that waited for its core would make the samples of one entrant single
    calls and those of its twin means of many, and the medians of the two are different things.
    """
    start = perf_counter()
    least_s = min(longest_s, max(sample_s, 1e-3, 1000 * get_clock_info("perf_counter").resolution))
    clock(step, rotate(LEAST_CALLS))
    calls = 1
    while True:
        spent = math.inf
        for _ in range(TRIES):
            spent = min(spent, clock(step, rotate(calls))[0])
            late = perf_counter() - start > cap_s
            if late or spent < least_s:
                break
        if spent >= least_s or late:
            break
        calls = min(calls * 10, max(calls + 1, math.ceil(1.1 * calls * least_s / max(spent, 1e-9))))
    samples: list[float] = []
    while True:
        samples += [clock(step, rotate(calls))[0] / calls for _ in range(WINDOW)]
        recent = samples[-WINDOW * WINDOWS :]
        if len(recent) == WINDOW * WINDOWS and agree(recent):
            return WarmUp(calls, True, perf_counter() - start, median(recent))
        if len(samples) >= WINDOW * LEAST_WINDOWS and perf_counter() - start > cap_s:
            return WarmUp(calls, False, perf_counter() - start, median(recent))


def agree(samples: Sequence[float]) -> bool:
    """Whether the medians of consecutive windows of 8 lie within 1 % of each other, or as close as
    the noise inside the windows lets them.
    """
    windows = [samples[start : start + WINDOW] for start in range(0, len(samples), WINDOW)]
    medians = [median(window) for window in windows]
    spread = median(
        abs(value - centre) for window, centre in zip(windows, medians, strict=True) for value in window
    )
    return max(medians) - min(medians) <= max(0.01 * median(samples), SPREADS * spread)


def migrations() -> int:
    """How often the main thread has changed cores; 0 where the kernel does not say."""
    try:
        for line in Path("/proc/self/sched").read_text().splitlines():
            if line.startswith("se.nr_migrations"):
                return int(line.rpartition(":")[2])
    except OSError:
        pass
    return 0
