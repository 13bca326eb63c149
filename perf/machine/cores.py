"""Reads what the kernel says of the cores that this process may use: how many, clock, threads of
one core.

Linux: cpufreq and topology under /sys/devices/system/cpu (Documentation/admin-guide/pm/cpufreq.rst,
cputopology.rst). A virtual machine often shows none of it; what is not there is None or empty.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection
from pathlib import Path

from . import control_groups
from .control_groups import ROOT, text


def allowed() -> tuple[int, ...]:
    """Returns the numbers of the cores (hardware threads) that this process may use."""
    return tuple(sorted(os.sched_getaffinity(0)))


def count(root: Path = ROOT) -> int:
    """Returns how many threads can run at a time: as many as there are cores for this process, and
    CPUs in its control group's quota, a fraction rounded up.
    """
    quota = control_groups.quota(root)
    return len(allowed()) if quota is None else max(1, min(len(allowed()), math.ceil(quota)))


def clock_hz(core: int, root: Path = ROOT) -> float | None:
    """Returns the core's clock now, Hz: of cpufreq (kHz), else of /proc/cpuinfo (MHz)."""
    if khz := text(root / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq"):
        return float(khz) * 1e3
    for block in text(root / "proc/cpuinfo").split("\n\n"):
        if re.search(rf"^processor\s*:\s*{core}$", block, re.M) and (
            mhz := re.search(r"^cpu MHz\s*:\s*([\d.]+)", block, re.M)
        ):
            return float(mhz[1]) * 1e6
    return None


def governor(core: int, root: Path = ROOT) -> str:
    """Returns the name of what chooses the core's clock; empty where there is none."""
    return text(root / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor")


def boosts(root: Path = ROOT) -> bool | None:
    """Returns whether cores may run above their nominal clock for as long as they stay cool."""
    cpu = root / "sys/devices/system/cpu"
    if boost := text(cpu / "cpufreq/boost"):
        return boost == "1"
    no_turbo = text(cpu / "intel_pstate/no_turbo")
    return no_turbo == "0" if no_turbo else None


def shared(cores: Collection[int], root: Path = ROOT) -> list[tuple[int, ...]]:
    """Returns those of `cores` that are hardware threads of one core (SMT), together."""
    groups = set()
    for core in cores:
        siblings = text(root / f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
        group = tuple(number for number in _numbers(siblings) if number in cores)
        if len(group) > 1:
            groups.add(group)
    return sorted(groups)


def ticks(root: Path = ROOT) -> dict[int | None, tuple[int, int]]:
    """Returns for each core, and under None for the whole machine, the ticks that the host took
    away from this virtual machine, and all ticks (proc(5): /proc/stat).
    """
    counted: dict[int | None, tuple[int, int]] = {None: (0, 0)}
    for line in text(root / "proc/stat").splitlines():
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
