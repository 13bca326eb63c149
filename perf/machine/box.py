"""A box as a container is one: so many CPUs and so much memory, for the workers that are measured.

Each worker has a control group of its own below that of this process (cgroup v2 where it has the
controllers, else v1): a quota of CPU time in each tenth of a second, and a limit of memory above
which the kernel ends the worker. Where no group may be made, the worker is bound to as many CPUs
and its own data are limited (RLIMIT_DATA). Builds and references are made outside of the box.

A forked worker shares what its server imported, and a control group does not count that: the first
blocks of a race, whose workers import everything themselves, are those that show a lack of memory.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import resource
from pathlib import Path
from typing import NamedTuple

from ..terms import units
from ..terms.reasons import Misuse
from . import control_groups, cores

# Of the quota, in microseconds: what containers are started with.
PERIOD_US = 100_000
# The kernel's least quota is a hundredth of it.
LEAST_CPUS = 0.01
NAME = "hotlap-{owner}-{number}"
EXAMPLE = "cpus=2,memory=1GiB"
# What one process calls its groups, one after the other.
_numbers = itertools.count()


class Size(NamedTuple):
    """How large a box is."""

    # CPUs, which may be a fraction; None for all.
    cpus: float | None
    # B; None for all.
    memory_bytes: int | None

    def __str__(self) -> str:
        """As `parse` reads it."""
        cpus = f"cpus={self.cpus:g}" if self.cpus is not None else ""
        memory = f"memory={self.memory_bytes}B" if self.memory_bytes is not None else ""
        return ",".join(filter(None, (cpus, memory)))

    @property
    def words(self) -> str:
        """For a reader."""
        cpus = "" if self.cpus is None else f"{self.cpus:g} CPU{'' if self.cpus == 1 else 's'}"
        memory = "" if self.memory_bytes is None else units.scaled(self.memory_bytes, "B")
        return " and ".join(filter(None, (cpus, memory)))

    @property
    def threads(self) -> int:
        """The most threads that run at a time."""
        return cores.count() if self.cpus is None else min(cores.count(), math.ceil(self.cpus))


def parse(text: str) -> Size:
    """Reads `cpus=2,memory=1GiB`, or one of both. Raises Misuse."""
    values: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(cpus|memory)\s*=\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)", part)
        known = {"cpus": {"": 1.0}, "memory": units.BYTES}.get(match[1], {}) if match else {}
        if match is None or match[3] not in known or match[1] in values or float(match[2]) <= 0:
            raise Misuse(
                f"--box {part[:60]!r}: expected {EXAMPLE}; units of memory: {', '.join(units.BYTES)}"
            )
        values[match[1]] = float(match[2]) * known[match[3]]
    if not values:
        raise Misuse(f"--box {text[:60]!r}: expected {EXAMPLE}")
    cpus, memory = values.get("cpus"), values.get("memory")
    if cpus is not None and not LEAST_CPUS <= cpus <= cores.count():
        raise Misuse(f"--box cpus={cpus:g}: this process may use {LEAST_CPUS:g} to {cores.count()} CPUs")
    return Size(cpus, int(memory) if memory is not None else None)


def canonical(text: str) -> str:
    """Returns a size as plans have it; empty for none. Raises Misuse."""
    return str(parse(text)) if text else ""


def threads(text: str) -> int:
    """Returns the most threads that run at a time in a box of this size, or without one."""
    return parse(text).threads if text else cores.count()


def words(text: str) -> str:
    """Returns how large a box of this size is and what will hold it; empty without one."""
    return Box(parse(text)).words if text else ""


class Hold:
    """What holds one process; `close` removes it when the process has ended."""

    def __init__(self, size: Size, groups: list[Path]) -> None:
        self.size, self.groups = size, groups

    def ended_it(self) -> bool:
        """Returns whether the kernel has ended a process because the box's memory was full."""
        counted = [
            control_groups.text(group / name)
            for group in self.groups
            for name in ("memory.events", "memory.oom_control")
        ]
        return any(re.search(r"^oom_kill [1-9]", each, re.M) for each in counted)

    def close(self) -> None:
        """Removes the groups; one that still has a process stays, and is swept up later."""
        for group in self.groups:
            with contextlib.suppress(OSError):
                group.rmdir()


class Box:
    """Holds processes to a size, each by itself."""

    def __init__(self, size: Size, root: Path = control_groups.ROOT) -> None:
        self.size, self.root = size, root
        # Why no control group can be made; empty where one can.
        self.lacks = ""
        self.sweep()
        try:
            Hold(size, self.made()).close()
        except OSError as error:
            self.lacks = error.strerror or str(error)

    @property
    def words(self) -> str:
        """How large it is and what holds it."""
        if not self.lacks:
            return f"{self.size.words} (control group)"
        bound = math.ceil(self.size.cpus) if self.size.cpus is not None else 0
        means = [f"bound to {bound} of the cores"] if bound else []
        means += ["RLIMIT_DATA"] if self.size.memory_bytes is not None else []
        return f"{self.size.words} ({', '.join(means)}; no control group: {self.lacks})"

    @property
    def cores(self) -> int:
        """How many cores a process in it sees, which a quota does not lessen."""
        bound = self.lacks and self.size.cpus is not None
        return self.size.threads if bound else len(cores.allowed())

    def put(self, pid: int) -> Hold:
        """Holds a process, and all that it will start, to the size. Raises OSError."""
        if self.lacks:
            if self.size.cpus is not None:
                os.sched_setaffinity(pid, cores.allowed()[: math.ceil(self.size.cpus)])
            if self.size.memory_bytes is not None:
                resource.prlimit(pid, resource.RLIMIT_DATA, (self.size.memory_bytes, self.size.memory_bytes))
            return Hold(self.size, [])
        groups = self.made()
        for group in groups:
            (group / "cgroup.procs").write_text(str(pid))
        return Hold(self.size, groups)

    def made(self) -> list[Path]:
        """Makes the groups of one process, with their limits: one, or in v1 one for each
        controller. Raises OSError.
        """
        wanted = {"cpu": self.size.cpus, "memory": self.size.memory_bytes}
        controllers = [name for name, value in wanted.items() if value is not None]
        name = NAME.format(owner=os.getpid(), number=next(_numbers))
        groups: list[Path] = []
        try:
            if (version_2 := self.unified(controllers)) is not None:
                groups = [below(version_2, name, controllers)]
            else:
                groups = [self.older(controller) / name for controller in controllers]
                for group in groups:
                    group.mkdir()
            for group in groups:
                for file, value in self.limits(group):
                    (group / file).write_text(value)
        except OSError:
            Hold(self.size, groups).close()
            raise
        return groups

    def unified(self, controllers: list[str]) -> list[Path] | None:
        """Returns the groups of v2 under which one may be made: our own and, since one with
        processes has no groups with controllers below it, the one above. None where v1 has the
        controllers.
        """
        ours = [control_groups.groups(controller, self.root)[:2] for controller in controllers]
        if not ours[0]:
            raise FileNotFoundError(2, "none is mounted")
        return ours[0] if all(each and (each[0] / "cgroup.controllers").exists() for each in ours) else None

    def older(self, controller: str) -> Path:
        """Returns our own group of a controller in v1. Raises OSError."""
        if ours := control_groups.groups(controller, self.root):
            return ours[0]
        raise FileNotFoundError(2, f"none has the {controller} controller")

    def limits(self, group: Path) -> list[tuple[str, str]]:
        """Returns which file of a group says what. Swap is counted only where the kernel does."""
        spent, memory = round((self.size.cpus or 0) * PERIOD_US), str(self.size.memory_bytes)
        cpu = [
            ("cpu.max", f"{spent} {PERIOD_US}"),
            ("cpu.cfs_period_us", str(PERIOD_US)),
            ("cpu.cfs_quota_us", str(spent)),
        ]
        of_memory = [
            ("memory.max", memory),
            ("memory.swap.max", "0"),
            ("memory.limit_in_bytes", memory),
            ("memory.memsw.limit_in_bytes", memory),
        ]
        wanted = (cpu if self.size.cpus is not None else []) + (
            of_memory if self.size.memory_bytes is not None else []
        )
        return [(file, value) for file, value in wanted if (group / file).exists()]

    def sweep(self) -> None:
        """Removes groups whose owner has ended without doing so; those with processes stay."""
        for controller in ("cpu", "memory"):
            for parent in control_groups.groups(controller, self.root)[:2]:
                for group in parent.glob(NAME.format(owner="*", number="*")):
                    owner = group.name.split("-")[1]
                    if not (self.root / "proc" / owner).exists():
                        with contextlib.suppress(OSError):
                            group.rmdir()


def below(parents: list[Path], name: str, controllers: list[str]) -> Path:
    """Makes a group of v2 that has these controllers under the first parent that lets it. Raises
    OSError.
    """
    refused: OSError | None = None
    for parent in parents:
        group = parent / name
        try:
            group.mkdir()
            if lacking := [each for each in controllers if not (group / f"{each}.max").exists()]:
                enabled = " ".join(f"+{each}" for each in lacking)
                (parent / "cgroup.subtree_control").write_text(enabled)
            return group
        except OSError as error:
            refused = error
            with contextlib.suppress(OSError):
                group.rmdir()
    assert refused is not None
    raise refused
