"""Where a result was measured.

`differs` says what of it forbids a comparison and what is only worth a note.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import msgspec

# What never forbids a comparison.
NOTED = ("host", "commit", "system", "memory_bytes")


class Differences(NamedTuple):
    """Field -> (mine, theirs)."""

    blocking: dict[str, tuple[str, str]]
    noted: dict[str, tuple[str, str]]


class Environment(msgspec.Struct, frozen=True):
    cpu: str
    cores: int
    memory_bytes: int
    isa: tuple[str, ...]
    system: str
    python: str
    libraries: dict[str, str]
    gpus: tuple[str, ...]
    driver: str
    threads: int
    allocator: str
    hugepages: str
    commit: str
    host: str

    @property
    def key(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:12]

    def differs(self, other: Environment) -> Differences:
        """What differs from `other`; host name, commit and kernel release never forbid a
        comparison.
        """
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
        """Every field as text, each library by its own name."""
        flat = {
            name: str(value) for name, value in msgspec.structs.asdict(self).items() if name != "libraries"
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
        return (
            f"{self.cpu}, {self.threads} of {self.cores} cores ({', '.join(self.isa) or 'baseline'}),"
            f" {self.memory_bytes / 2**30:.0f} GiB, {accelerators}"
        )
