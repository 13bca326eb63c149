"""Reads what Linux's control groups grant to this process: CPU quota, and how often it was stopped
by it.

cgroup v2 (Documentation/admin-guide/cgroup-v2.rst: cpu.max, cpu.stat) and v1 (cpu.cfs_quota_us of
Documentation/scheduler/sched-bwc.rst). In a container the name of the group may be one of the host;
the folder that is mounted is then the container's own.
"""

from __future__ import annotations

import re
from pathlib import Path

# Where /sys and /proc are; tests put a made tree in its place.
ROOT = Path("/")


def groups(controller: str, root: Path = ROOT) -> list[Path]:
    """Returns the folders of this process's control group for a controller and of those above it,
    its own first; empty where none is mounted.
    """
    older, unified = "", ""
    for line in text(root / "proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            older = path
        elif not names:
            unified = path
    below = root / "sys/fs/cgroup"
    joined = [path for path in below.glob("*") if controller in path.name.split(",")]
    places = [(each, older) for each in joined] if older else []
    places += [(below, unified), (below / "unified", unified)] if unified else []
    for mount, path in places:
        if (mount / "cgroup.procs").exists():
            own = mount / path.strip("/")
            above = [folder for folder in own.parents if folder.is_relative_to(mount)]
            return [own, *above] if own.is_dir() else [mount]
    return []


def quota(root: Path = ROOT) -> float | None:
    """Returns how many CPUs the quotas of this process's control group and of those above it grant;
    None where there is no quota.
    """
    granted = []
    for folder in groups("cpu", root):
        if limits := text(folder / "cpu.max").split():
            spent, period = limits[0], limits[1]
        else:
            spent, period = text(folder / "cpu.cfs_quota_us"), text(folder / "cpu.cfs_period_us")
        if spent.isdigit() and period.isdigit() and int(period):
            granted.append(int(spent) / int(period))
    return min(granted, default=None)


def throttled(root: Path = ROOT) -> int:
    """Returns how often the CPU quota of our control group has stopped us so far."""
    for folder in groups("cpu", root):
        if count := re.search(r"^nr_throttled (\d+)$", text(folder / "cpu.stat"), re.M):
            return int(count[1])
    return 0


def text(path: Path) -> str:
    """Returns what a file of the kernel says; empty where it is not there or not readable."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
