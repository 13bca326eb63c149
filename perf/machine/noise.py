"""How noisy this machine is at the moment, level by level, and what of it can be named.

A fixed Python loop runs on each core in turn, a visit of a few samples at a time: samples of a
visit differ by what interrupts, visits of a core by what drifts, cores by what they are or by who
else is on them.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from statistics import fmean, median, pstdev
from typing import NamedTuple

from ..stats import estimates
from . import cores

LOOP_S = 0.005
NO_TICKS = (0, 0)
VISIT, LEAST_VISITS = 8, 3
# Standard deviation over median absolute deviation from the median of a visit, of normal values (by
# simulation; 1.4826 where visits are long).
MAD_OF_VISIT = 1.776
BUSY_SHARE, STEAL_SHARE, SPREAD, CORES_APART, CLOCK_APART = 0.1, 0.005, 0.02, 0.05, 0.05


class Core(NamedTuple):
    """centre_s: median of the loop.

    steal: share that the host took. clock_hz: lowest and highest that was seen, None where the
    kernel does not tell.
    """

    number: int
    centre_s: float
    steal: float
    clock_hz: tuple[float, float] | None


class Levels(NamedTuple):
    """Standard deviations of the log of a time: samples about their visit's median (robust: by the
    MAD), visits about their core's and cores about their mean.

    correlation: lag-1, within a visit. tail: 95th percentile of all samples over their median.
    """

    samples: float
    visits: float
    cores: float
    correlation: float
    tail: float


class Noise(NamedTuple):
    """switches: involuntary, a second. cause: what of it can be named, and what to do about it."""

    levels: Levels
    cores: tuple[Core, ...]
    switches: float
    causes: tuple[str, ...]


def listen(seconds: float) -> Noise:
    """Times the loop for about so long, at least three visits a core, beside what the kernel counts
    meanwhile. The calling thread's cores are as before afterwards.
    """
    import resource

    import psutil

    others = {
        process.pid: process for process in psutil.process_iter() if process.pid != psutil.Process().pid
    }
    for process in others.values():
        _share(process)
    ours = cores.allowed()
    count = _calibrated()
    before, usage, stops = cores.ticks(), resource.getrusage(resource.RUSAGE_SELF), cores.throttled()
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
    after, elapsed = cores.ticks(), time.perf_counter() - start
    each = tuple(
        Core(
            core,
            median(sample for visit in visits[core] for sample in visit),
            cores.stolen(before.get(core, NO_TICKS), after.get(core, NO_TICKS)),
            (min(clocks[core]), max(clocks[core])) if clocks[core] else None,
        )
        for core in ours
    )
    switches = (resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - usage.ru_nivcsw) / elapsed
    busy = {
        f"process {process.pid} ({_name(process)})": share
        for process in others.values()
        if (share := _share(process)) >= BUSY_SHARE
    }
    seen = levels(visits)
    steal = cores.stolen(before.get(None, NO_TICKS), after.get(None, NO_TICKS))
    return Noise(
        seen, each, switches, tuple(causes(seen, each, busy, steal, switches, cores.throttled() - stops))
    )


def levels(visits: Mapping[int, Sequence[Sequence[float]]]) -> Levels:
    """Samples in seconds by core and visit.

    What a level has of the one below it, as the middle of few samples, is taken off.
    """
    logs = {core: [[math.log(sample) for sample in visit] for visit in each] for core, each in visits.items()}
    samples = MAD_OF_VISIT * median(
        abs(sample - median(visit)) for each in logs.values() for visit in each for sample in visit
    )
    middles = {core: [median(visit) for visit in each] for core, each in logs.items()}
    of_visits = fmean(pstdev(each) ** 2 * len(each) / (len(each) - 1) for each in middles.values())
    of_cores = (
        pstdev([fmean(each) for each in middles.values()]) ** 2 * len(middles) / (len(middles) - 1)
        if len(middles) > 1
        else 0.0
    )
    every = sorted(sample for each in visits.values() for visit in each for sample in visit)
    return Levels(
        samples=samples,
        visits=math.sqrt(
            max(
                0.0,
                of_visits
                - math.pi / 2 * samples**2 / fmean(len(visit) for each in logs.values() for visit in each),
            )
        ),
        cores=math.sqrt(max(0.0, of_cores - of_visits / fmean(len(each) for each in middles.values()))),
        correlation=fmean(estimates.autocorrelation(visit) for each in logs.values() for visit in each),
        tail=every[int(0.95 * len(every))] / median(every),
    )


def causes(
    seen: Levels, each: Sequence[Core], busy: Mapping[str, float], steal: float, switches: float, stops: int
) -> list[str]:
    """What disturbs and what to do about it, in words."""
    found = [f"{name} used {share:.0%} of a core: end it or wait for it" for name, share in busy.items()]
    if steal >= STEAL_SHARE:
        found.append(
            f"the host took {steal:.1%} of this virtual machine's time (steal): neighbours; measure side by"
            " side, as hotlap run does"
        )
    if stops:
        found.append(
            f"the CPU quota of the control group stopped this process {stops} times: raise it (cpu.max), or"
            " use fewer threads"
        )
    if switches >= 5:
        found.append(
            f"{switches:.0f} involuntary context switches a second: more runnable threads than cores"
        )
    fast, slow = min(each, key=lambda core: core.centre_s), max(each, key=lambda core: core.centre_s)
    if slow.centre_s > (1 + CORES_APART) * fast.centre_s:
        found.append(
            f"core {slow.number} took {slow.centre_s / fast.centre_s - 1:.0%} longer than core {fast.number}:"
            " compare only what ran on the same cores, as hotlap does"
        )
    moved = [
        core for core in each if core.clock_hz and core.clock_hz[1] > (1 + CLOCK_APART) * core.clock_hz[0]
    ]
    if moved:
        named = ", ".join(
            f"core {core.number} {core.clock_hz[0] / 1e9:.2f} to {core.clock_hz[1] / 1e9:.2f} GHz"
            for core in moved
            if core.clock_hz
        )
        boost = "; switch boost off (cpufreq/boost or intel_pstate/no_turbo)" if cores.boosts() else ""
        found.append(f"the clock moved: {named}{boost}")
    if slack := sorted(
        {said for core in each if (said := cores.governor(core.number)) not in ("", "performance")}
    ):
        found.append(f"CPU governor {', '.join(slack)}: cpupower frequency-set -g performance")
    numbers = [core.number for core in each]
    if together := cores.shared(numbers):
        kept = sorted(set(numbers) - {core for group in together for core in group[1:]})
        found.append(
            f"{len(together)} pairs of these cores are hardware threads of one: taskset -c"
            f" {','.join(map(str, kept))}"
        )
    if not found:
        known = "no busy process, no steal and few switches"
        found.append(
            f"{known}: what is left is clock frequency, shared caches and memory of neighbours"
            if seen.samples >= SPREAD
            else f"{known}: quiet"
        )
    return found


def _visit(count: int) -> list[float]:
    """Seconds of a few loops; the first after the move between cores is not counted."""
    samples = []
    for _ in range(1 + VISIT):
        at = time.perf_counter()
        _loop(count)
        samples.append(time.perf_counter() - at)
    return samples[1:]


def _loop(count: int) -> int:
    total = 0
    for value in range(count):
        total += value
    return total


def _calibrated() -> int:
    count = 1000
    while True:
        at = time.perf_counter()
        _loop(count)
        if time.perf_counter() - at >= LOOP_S:
            return count
        count *= 2


def _share(process: object) -> float:
    """Share of a core since the last call; 0 for a process that has ended."""
    import psutil

    try:
        return float(process.cpu_percent()) / 100  # type: ignore[attr-defined]
    except psutil.Error:
        return 0.0


def _name(process: object) -> str:
    import psutil

    try:
        return str(process.name())  # type: ignore[attr-defined]
    except psutil.Error:
        return "ended"
