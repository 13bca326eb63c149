"""What the kernel says of the cores that this process may use: clock, threads of one core, CPU
quota.

Linux: cpufreq and topology under /sys/devices/system/cpu (Documentation/admin-guide/pm/cpufreq.rst,
cputopology.rst), cgroup v2's cpu.stat (cgroup-v2.rst). A virtual machine often shows none of it;
what is not there is None or empty.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

ROOT = Path("/")


def allowed() -> tuple[int, ...]:
    return tuple(sorted(os.sched_getaffinity(0)))


def clock_hz(core: int, root: Path = ROOT) -> float | None:
    """What the core runs at now: of cpufreq (kHz), else of /proc/cpuinfo (MHz)."""
    if said := _said(root / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq"):
        return float(said) * 1e3
    for block in _said(root / "proc/cpuinfo").split("\n\n"):
        if re.search(rf"^processor\s*:\s*{core}$", block, re.M) and (
            found := re.search(r"^cpu MHz\s*:\s*([\d.]+)", block, re.M)
        ):
            return float(found[1]) * 1e6
    return None


def governor(core: int, root: Path = ROOT) -> str:
    return _said(root / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor")


def boosts(root: Path = ROOT) -> bool | None:
    """Whether cores may run above their nominal clock for as long as they stay cool."""
    cpu = root / "sys/devices/system/cpu"
    if said := _said(cpu / "cpufreq/boost"):
        return said == "1"
    said = _said(cpu / "intel_pstate/no_turbo")
    return said == "0" if said else None


def shared(cores: Collection[int], root: Path = ROOT) -> list[tuple[int, ...]]:
    """Those of `cores` that are hardware threads of one core (SMT), together."""
    found = set()
    for core in cores:
        said = _said(root / f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
        together = tuple(one for one in _listed(said) if one in cores)
        if len(together) > 1:
            found.add(together)
    return sorted(found)


def throttled(root: Path = ROOT) -> int:
    """How often the CPU quota of our control group has stopped us so far."""
    found = re.search(r"^0::/(.*)$", _said(root / "proc/self/cgroup"), re.M)
    for folder in ([found[1]] if found else []) + [""]:
        if count := re.search(
            r"^nr_throttled (\d+)$", _said(root / "sys/fs/cgroup" / folder / "cpu.stat"), re.M
        ):
            return int(count[1])
    return 0


def ticks(root: Path = ROOT) -> dict[int | None, tuple[int, int]]:
    """Per core, and under None for the whole machine: ticks that the host took away from this
    virtual machine, and all ticks (proc(5): /proc/stat).
    """
    found: dict[int | None, tuple[int, int]] = {None: (0, 0)}
    for line in _said(root / "proc/stat").splitlines():
        name, *words = line.split()
        if name.startswith("cpu"):
            counts = [int(word) for word in words]
            found[int(name[3:]) if name[3:] else None] = (
                (counts[7] if len(counts) > 7 else 0),
                sum(counts[:8]),
            )
    return found


def stolen(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Share of the time between two readings of `ticks`."""
    return (after[0] - before[0]) / max(1, after[1] - before[1])


def _listed(said: str) -> list[int]:
    """`0,4-6` as numbers (cputopology.rst)."""
    found: list[int] = []
    for part in filter(None, said.split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _said(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
