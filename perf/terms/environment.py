"""Where a result was measured, and which differences forbid a comparison."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import msgspec

from .stored import Count

# Fields that an environment need not have: what has none is like one that was stored before them.
OPTIONAL = ("quota", "box")
# Fields that never forbid a comparison: they name a machine or a state of it, not its speed.
NOTED = ("host", "commit", "system", "memory_bytes")


class Differences(NamedTuple):
    """What differs between two environments, as field -> (mine, theirs)."""

    # Forbids a comparison.
    blocking: dict[str, tuple[str, str]]
    # Is only worth a note.
    noted: dict[str, tuple[str, str]]


class Environment(msgspec.Struct, frozen=True, omit_defaults=True):
    """The machine, its software and the settings under which a race was measured."""

    # The processor's model name.
    cpu: str
    # Cores (hardware threads) that this process may use.
    cores: Count
    # The machine's memory, B.
    memory_bytes: Count
    # Those of the instruction sets that matter to a model which the processor has.
    isa: tuple[str, ...]
    # Kernel and its release.
    system: str
    # Version of Python.
    python: str
    # Library -> version, of those installed.
    libraries: dict[str, str]
    # Names of the GPUs, of one in MIG mode those of its slices.
    gpus: tuple[str, ...]
    # Version of the NVIDIA driver; empty without one.
    driver: str
    # Threads of each entrant.
    threads: Count
    # How the workers' allocator was set.
    allocator: str
    # The kernel's choice of transparent huge pages.
    hugepages: str
    # Commit of the directory hotlap was started in, + for uncommitted changes; empty outside git.
    commit: str
    # The machine's name.
    host: str
    # CPUs that the quota of the control group grants; 0 without one.
    quota: float = 0.0
    # CPUs and memory that each worker was held to, and by what; empty without.
    box: str = ""

    @property
    def key(self) -> str:
        """A short hash of all fields, by which results name their environment."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:12]

    def differs(self, other: Environment) -> Differences:
        """Returns what differs from `other`; what NOTED names never forbids a comparison."""
        mine, theirs = self.fields, other.fields
        different = {
            name: (mine.get(name, "none"), theirs.get(name, "none"))
            for name in {**mine, **theirs}
            if mine.get(name) != theirs.get(name)
        }
        noted = {name: pair for name, pair in different.items() if name in NOTED}
        return Differences({name: pair for name, pair in different.items() if name not in noted}, noted)

    @property
    def fields(self) -> dict[str, str]:
        """Every field that it has as text, each library by its own name."""
        flat = {
            name: str(value)
            for name, value in msgspec.structs.asdict(self).items()
            if name != "libraries" and (value or name not in OPTIONAL)
        }
        return {**flat, **self.libraries}

    @property
    def setting(self) -> dict[str, str]:
        """What two results must share to be compared."""
        return {name: value for name, value in self.fields.items() if name not in NOTED}

    @property
    def hardware(self) -> str:
        """One line for the head of a table."""
        accelerators = ", ".join(self.gpus) or "no GPU"
        quota = f", quota of {self.quota:g} CPUs" if self.quota else ""
        box = f"; in a box of {self.box}" if self.box else ""
        return (
            f"{self.cpu}, {self.threads} of {self.cores} cores ({', '.join(self.isa) or 'baseline'}),"
            f" {self.memory_bytes / 2**30:.0f} GiB, {accelerators}{quota}{box}"
        )
