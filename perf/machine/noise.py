"""Measures how noisy this machine is at the moment, level by level, and names what it can of it.

A fixed Python loop runs on each core in turn, a visit of a few samples at a time: samples of a
visit differ by what interrupts, visits of a core by what drifts, cores by what they are or by who
else is on them.
"""

from __future__ import annotations

import math
import os
import resource
import time
from collections.abc import Mapping, Sequence
from statistics import fmean, median, pstdev
from typing import NamedTuple

import psutil

from ..stats import estimates
from . import control_groups, cores

# Length of the timed loop, s: that of a sample of a race.
LOOP_S = 0.005
# What `ticks` has of a core that the kernel does not list.
NO_TICKS = (0, 0)
# Loops that are timed in a visit.
VISIT = 8
# Visits of each core that there are at least, so that they have a spread.
LEAST_VISITS = 3
# Standard deviation over median absolute deviation from the median of a visit, of normal values (by
# simulation; 1.4826 where visits are long).
MAD_OF_VISIT = 1.776
# Share of a core from which another process is named.
BUSY_SHARE = 0.1
# Share of the machine's time taken by its host from which that is named.
STEAL_SHARE = 0.005
# Spread of samples from which a machine without a known cause is not called quiet.
SPREAD = 0.02
# Share by which the slowest core may take longer than the fastest.
CORES_APART = 0.05
# Share by which a core's clock may move.
CLOCK_APART = 0.05
# Involuntary context switches a second from which they are named.
SWITCHES = 5


class Core(NamedTuple):
    """What was seen of one core."""

    number: int
    # Median of the loop's times, s.
    centre_s: float
    # Share of the core's time that the host took.
    steal: float
    # Lowest and highest clock that was seen, Hz; None where the kernel does not tell.
    clock_hz: tuple[float, float] | None


class Levels(NamedTuple):
    """How much times differ: standard deviations of their logs, level by level."""

    # Samples about their visit's median (robust: by the MAD).
    samples: float
    # Visits about the mean of their core's.
    visits: float
    # Cores about their mean.
    cores: float
    # Lag-1 correlation of the samples of a visit.
    correlation: float
    # 95th percentile of all samples over their median.
    tail: float


class Noise(NamedTuple):
    """What listening to this machine gave."""

    levels: Levels
    cores: tuple[Core, ...]
    # Involuntary context switches a second.
    switches: float
    # What of it can be named and what to do about it, a line each.
    causes: tuple[str, ...]


def listen(seconds: float) -> Noise:
    """Times the loop for about so long, at least three visits a core, beside what the kernel counts
    meanwhile. The calling thread's cores are as before afterwards.
    """
    own = psutil.Process().pid
    others = {process.pid: process for process in psutil.process_iter() if process.pid != own}
    for process in others.values():
        _share(process)
    before, usage, stops = cores.ticks(), resource.getrusage(resource.RUSAGE_SELF), control_groups.throttled()
    start = time.perf_counter()
    visits, clocks = _visits(seconds)
    after, elapsed = cores.ticks(), time.perf_counter() - start
    each = tuple(
        Core(
            number=core,
            centre_s=median(sample for visit in visits[core] for sample in visit),
            steal=cores.stolen(before.get(core, NO_TICKS), after.get(core, NO_TICKS)),
            clock_hz=(min(clocks[core]), max(clocks[core])) if clocks[core] else None,
        )
        for core in visits
    )
    switches = (resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - usage.ru_nivcsw) / elapsed
    busy = {
        f"process {process.pid} ({_name(process)})": share
        for process in others.values()
        if (share := _share(process)) >= BUSY_SHARE
    }
    seen = levels(visits)
    steal = cores.stolen(before.get(None, NO_TICKS), after.get(None, NO_TICKS))
    named = causes(seen, each, busy, steal, switches, control_groups.throttled() - stops)
    return Noise(seen, each, switches, tuple(named))


def _visits(seconds: float) -> tuple[dict[int, list[list[float]]], dict[int, list[float]]]:
    """Visits each core in turn for about so long; returns by core the samples of each visit, s, and
    the clocks that were seen, Hz.
    """
    ours = cores.allowed()
    count = _calibrated()
    visits: dict[int, list[list[float]]] = {core: [] for core in ours}
    clocks: dict[int, list[float]] = {core: [] for core in ours}
    start = time.perf_counter()
    try:
        while time.perf_counter() - start < seconds or len(visits[ours[0]]) < LEAST_VISITS:
            for core in ours:
                os.sched_setaffinity(0, {core})
                visits[core].append(_visit(count))
                if clock := cores.clock_hz(core):
                    clocks[core].append(clock)
    finally:
        os.sched_setaffinity(0, ours)
    return visits, clocks


def levels(visits: Mapping[int, Sequence[Sequence[float]]]) -> Levels:
    """Returns the levels of samples in seconds, by core and visit.

    What a level has of the one below it, as the middle of few samples, is taken off.
    """
    logs = {core: [[math.log(sample) for sample in visit] for visit in each] for core, each in visits.items()}
    of_samples = MAD_OF_VISIT * median(
        abs(sample - median(visit)) for each in logs.values() for visit in each for sample in visit
    )
    middles = {core: [median(visit) for visit in each] for core, each in logs.items()}
    of_visits = fmean(pstdev(each) ** 2 * len(each) / (len(each) - 1) for each in middles.values())
    of_cores = 0.0
    if len(middles) > 1:
        spread = pstdev([fmean(each) for each in middles.values()])
        of_cores = spread**2 * len(middles) / (len(middles) - 1)
    every = sorted(sample for each in visits.values() for visit in each for sample in visit)
    length = fmean(len(visit) for each in logs.values() for visit in each)
    # The variance of the median of n normal values is pi / 2 sigma^2 / n.
    between_visits = of_visits - math.pi / 2 * of_samples**2 / length
    between_cores = of_cores - of_visits / fmean(len(each) for each in middles.values())
    return Levels(
        samples=of_samples,
        visits=math.sqrt(max(0.0, between_visits)),
        cores=math.sqrt(max(0.0, between_cores)),
        correlation=fmean(estimates.autocorrelation(visit) for each in logs.values() for visit in each),
        tail=every[int(0.95 * len(every))] / median(every),
    )


def causes(
    seen: Levels, each: Sequence[Core], busy: Mapping[str, float], steal: float, switches: float, stops: int
) -> list[str]:
    """Returns what disturbs and what to do about it, a line each; never nothing.

    busy: process -> share of a core. steal: share of the machine's time. switches: a second. stops:
    by the CPU quota.
    """
    lines = [f"{name} used {share:.0%} of a core: end it or wait for it" for name, share in busy.items()]
    if steal >= STEAL_SHARE:
        lines.append(
            f"the host took {steal:.1%} of this virtual machine's time (steal): neighbours; measure side by"
            " side, as hotlap run does"
        )
    if stops:
        lines.append(
            f"the CPU quota of the control group stopped this process {stops} times: raise it (cpu.max), or"
            " use fewer threads"
        )
    if switches >= SWITCHES:
        lines.append(
            f"{switches:.0f} involuntary context switches a second: more runnable threads than cores"
        )
    lines += _causes_in_cores(each)
    if not lines:
        quiet = seen.samples < SPREAD
        rest = "quiet" if quiet else "what is left is clock frequency, shared caches and memory of neighbours"
        lines.append(f"no busy process, no steal and few switches: {rest}")
    return lines


def _causes_in_cores(each: Sequence[Core]) -> list[str]:
    """Returns what disturbs of the cores themselves: their speed, clocks, governors and threads."""
    lines = []
    fast, slow = min(each, key=lambda core: core.centre_s), max(each, key=lambda core: core.centre_s)
    if slow.centre_s > (1 + CORES_APART) * fast.centre_s:
        lines.append(
            f"core {slow.number} took {slow.centre_s / fast.centre_s - 1:.0%} longer than core {fast.number}:"
            " compare only what ran on the same cores, as hotlap does"
        )
    moved = [
        f"core {core.number} {core.clock_hz[0] / 1e9:.2f} to {core.clock_hz[1] / 1e9:.2f} GHz"
        for core in each
        if core.clock_hz and core.clock_hz[1] > (1 + CLOCK_APART) * core.clock_hz[0]
    ]
    if moved:
        boost = "; switch boost off (cpufreq/boost or intel_pstate/no_turbo)" if cores.boosts() else ""
        lines.append(f"the clock moved: {', '.join(moved)}{boost}")
    governors = {cores.governor(core.number) for core in each}
    if slack := sorted(governors - {"", "performance"}):
        lines.append(f"CPU governor {', '.join(slack)}: cpupower frequency-set -g performance")
    numbers = [core.number for core in each]
    if together := cores.shared(numbers):
        kept = sorted(set(numbers) - {core for group in together for core in group[1:]})
        lines.append(
            f"{len(together)} pairs of these cores are hardware threads of one: taskset -c"
            f" {','.join(map(str, kept))}"
        )
    return lines


def _visit(count: int) -> list[float]:
    """Returns the seconds of a few loops; the first after the move between cores is not counted."""
    return [_timed(count) for _ in range(1 + VISIT)][1:]


def _timed(count: int) -> float:
    """Returns the seconds of one loop of so many additions."""
    start = time.perf_counter()
    total = 0
    for value in range(count):
        total += value
    return time.perf_counter() - start


def _calibrated() -> int:
    """Returns a number of additions that takes at least LOOP_S."""
    count = 1000
    while _timed(count) < LOOP_S:
        count *= 2
    return count


def _share(process: psutil.Process) -> float:
    """Returns the share of a core since the last call; 0 for a process that has ended."""
    try:
        return float(process.cpu_percent()) / 100
    except psutil.Error:
        return 0.0


def _name(process: psutil.Process) -> str:
    """Returns the name of a process, or that it has ended."""
    try:
        return str(process.name())
    except psutil.Error:
        return "ended"
