"""A/A outcomes of the live gate: the same code against itself through the same path, kept to see
whether the gate alarms as rarely as it says.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from ..terms import stored
from ..terms.files import appended

# One case in so many is also raced against itself; which, changes with the commit.
SHARE = 10


class SelfRace(msgspec.Struct, frozen=True):
    """One race of BASE against itself.

    alarm: whether it was called slower than itself at tolerance 0, before confirmation.
    """

    case: str
    commit: str
    blocks: int
    ratio: float
    alarm: bool


def chosen(case: str, commit: str) -> bool:
    """Whether this case is raced against itself at this commit."""
    return int(hashlib.sha256(f"{case} {commit}".encode()).hexdigest(), 16) % SHARE == 0


def add(path: Path, entry: SelfRace) -> None:
    """Appends one line, written at once, so that two jobs cannot tear each other's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with appended(path) as file:
        file.write(msgspec.json.encode(entry) + b"\n")


def read(path: Path) -> list[SelfRace]:
    """Returns the entries of a ledger; lines that are none (a full disk, another version) are left
    out.
    """
    entries = []
    if path.is_file():
        for line in stored.content(path).splitlines():
            try:
                entries.append(msgspec.json.decode(line, type=SelfRace))
            except stored.UNDECODABLE:
                continue
    return entries


def distrusted(entries: list[SelfRace], alpha: float) -> str:
    """Returns why the gate is not to be trusted at this alpha: more alarms than 95 % of honest
    ledgers of this length have. Empty if it is.
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
