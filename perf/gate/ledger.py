"""A/A outcomes of the live gate: the same code against itself through the same path, kept to see
whether the gate alarms as rarely as it says.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

# One case in so many is also raced against itself; which, changes with the commit.
SHARE = 10


class Entry(msgspec.Struct, frozen=True):
    """alarm: whether BASE was called slower than itself at tolerance 0, before confirmation."""

    case: str
    commit: str
    blocks: int
    ratio: float
    alarm: bool


def chosen(case: str, commit: str) -> bool:
    return int(hashlib.sha256(f"{case} {commit}".encode()).hexdigest(), 16) % SHARE == 0


def add(path: Path, entry: Entry) -> None:
    """One line, written at once, so that two jobs cannot tear each other's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write(msgspec.json.encode(entry) + b"\n")


def read(path: Path) -> list[Entry]:
    """Lines that are no entries (a full disk, another version) are left out."""
    found = []
    if path.is_file():
        for line in path.read_bytes().splitlines():
            try:
                found.append(msgspec.json.decode(line, type=Entry))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
    return found


def distrusted(entries: list[Entry], alpha: float) -> str:
    """Why the gate is not to be trusted at this alpha: more alarms than 95 % of honest ledgers of
    this length have. Empty if it is.
    """
    from scipy.stats import binom

    alarms = sum(entry.alarm for entry in entries)
    most = int(binom.ppf(0.95, len(entries), alpha)) if entries else 0
    if alarms <= most:
        return ""
    return (
        f"A/A: {alarms} of {len(entries)} races of the same code alarmed, at most {most} are to be expected"
        f" at alpha {alpha:.0%}; the gate is suspended: see hotlap doctor"
    )
