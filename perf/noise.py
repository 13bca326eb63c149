"""How noisy this machine is at the moment, and what of it can be named."""

from __future__ import annotations

import time
from statistics import median
from typing import NamedTuple

LOOP_S = 0.005
BUSY_SHARE, STEAL_SHARE, SPREAD = 0.1, 0.005, 0.02


class Noise(NamedTuple):
    """spread: 1.4826 MAD over the median (a robust coefficient of variation). tail: 95th percentile over the median."""

    spread: float
    tail: float
    causes: tuple[str, ...]


def listen(seconds: float) -> Noise:
    """Times a fixed loop for so long, beside what the kernel counts meanwhile."""
    import resource

    import psutil

    from .race import steal_clock, steal_share

    others = {process.pid: process for process in psutil.process_iter() if process.pid != psutil.Process().pid}
    for process in others.values():
        _share(process)
    count = _calibrated()
    before, usage = steal_clock(), resource.getrusage(resource.RUSAGE_SELF)
    samples: list[float] = []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        at = time.perf_counter()
        _loop(count)
        samples.append(time.perf_counter() - at)
    elapsed = time.perf_counter() - start
    steal = steal_share(before, steal_clock())
    switches = (resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - usage.ru_nivcsw) / elapsed
    centre = median(samples)
    spread = 1.4826 * median(abs(value - centre) for value in samples) / centre
    tail = sorted(samples)[int(0.95 * len(samples))] / centre
    causes = []
    for process in others.values():
        share = _share(process)
        if share >= BUSY_SHARE:
            causes.append(f"process {process.pid} ({_name(process)}) used {share:.0%} of a core: end it or wait for it")
    if steal >= STEAL_SHARE:
        causes.append(f"the host took {steal:.1%} of this virtual machine's time (steal): neighbours; measure side by side, as hotlap run does")
    if switches >= 5:
        causes.append(f"{switches:.0f} involuntary context switches a second: more runnable threads than cores")
    if not causes:
        known = "no busy process, no steal and few switches"
        causes.append(f"{known}: what is left is clock frequency, shared caches and memory of neighbours" if spread >= SPREAD else f"{known}: quiet")
    return Noise(spread, tail, tuple(causes))


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
