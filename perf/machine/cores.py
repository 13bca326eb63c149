"""Reads what the kernel says of the cores that this process may use: clock, threads of one core,
CPU quota.

Linux: cpufreq and topology under /sys/devices/system/cpu (Documentation/admin-guide/pm/cpufreq.rst,
cputopology.rst), cgroup v2's cpu.stat (cgroup-v2.rst). A virtual machine often shows none of it;
what is not there is None or empty.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

# Where /sys and /proc are; tests put a made tree in its place.
ROOT = Path("/")


def allowed() -> tuple[int, ...]:
    """Returns the numbers of the cores (hardware threads) that this process may use."""
    return tuple(sorted(os.sched_getaffinity(0)))


def clock_hz(core: int, root: Path = ROOT) -> float | None:
    """Returns the core's clock now, Hz: of cpufreq (kHz), else of /proc/cpuinfo (MHz)."""
    if khz := _text(root / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq"):
        return float(khz) * 1e3
    for block in _text(root / "proc/cpuinfo").split("\n\n"):
        if re.search(rf"^processor\s*:\s*{core}$", block, re.M) and (
            mhz := re.search(r"^cpu MHz\s*:\s*([\d.]+)", block, re.M)
        ):
            return float(mhz[1]) * 1e6
    return None


def governor(core: int, root: Path = ROOT) -> str:
    """Returns the name of what chooses the core's clock; empty where there is none."""
    return _text(root / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor")


def boosts(root: Path = ROOT) -> bool | None:
    """Returns whether cores may run above their nominal clock for as long as they stay cool."""
    cpu = root / "sys/devices/system/cpu"
    if boost := _text(cpu / "cpufreq/boost"):
        return boost == "1"
    no_turbo = _text(cpu / "intel_pstate/no_turbo")
    return no_turbo == "0" if no_turbo else None


def shared(cores: Collection[int], root: Path = ROOT) -> list[tuple[int, ...]]:
    """Returns those of `cores` that are hardware threads of one core (SMT), together."""
    groups = set()
    for core in cores:
        siblings = _text(root / f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
        group = tuple(number for number in _numbers(siblings) if number in cores)
        if len(group) > 1:
            groups.add(group)
    return sorted(groups)


def throttled(root: Path = ROOT) -> int:
    """Returns how often the CPU quota of our control group has stopped us so far."""
    own = re.search(r"^0::/(.*)$", _text(root / "proc/self/cgroup"), re.M)
    for folder in ([own[1]] if own else []) + [""]:
        statistics = _text(root / "sys/fs/cgroup" / folder / "cpu.stat")
        if count := re.search(r"^nr_throttled (\d+)$", statistics, re.M):
            return int(count[1])
    return 0


def ticks(root: Path = ROOT) -> dict[int | None, tuple[int, int]]:
    """Returns for each core, and under None for the whole machine, the ticks that the host took
    away from this virtual machine, and all ticks (proc(5): /proc/stat).
    """
    counted: dict[int | None, tuple[int, int]] = {None: (0, 0)}
    for line in _text(root / "proc/stat").splitlines():
        name, *words = line.split()
        if name.startswith("cpu"):
            counts = [int(word) for word in words]
            steal = counts[7] if len(counts) > 7 else 0
            counted[int(name[3:]) if name[3:] else None] = (steal, sum(counts[:8]))
    return counted


def stolen(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Returns the share of the time that the host took between two readings of `ticks`."""
    return (after[0] - before[0]) / max(1, after[1] - before[1])


def _numbers(text: str) -> list[int]:
    """Reads `0,4-6` as numbers (cputopology.rst)."""
    numbers: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _text(path: Path) -> str:
    """Returns what a file of the kernel says; empty where it is not there or not readable."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
