"""One side of a gate, and one point of a history: what results say of their cases, whoever wrote
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ..terms.case import Better
from ..terms.environment import Differences, Environment
from ..terms.result import Task
from ..terms.verdict import Place

# Statuses of a result that can be compared.
GOOD = ("ok", "noisy", "verified")
# Of a benchmark that stands in the file and cannot be used.
UNREADABLE = "unreadable"
# What a time is called here: the metric that a policy gates first.
LATENCY = "latency"
# A quantity that is no metric of hotlap, in a unit of its own.
FIGURE = "figure"
# Of other tools' environments, what forbids a comparison; all the rest is only noted.
BLOCKING = ("machine", "cpu", "cpus", "python", "implementation", "build")


@dataclass(frozen=True)
class Sample:
    """One metric of one case."""

    unit: str
    better: Better
    # In the unit.
    centre: float
    # Block values on the log scale, as ratios to the pace if `paced`.
    logs: tuple[float, ...] = ()
    # Every sample of each block, where that is known.
    blocks: tuple[tuple[float, ...], ...] = ()
    paced: bool = False
    # Whether each block is a run of its own, which may have been a job of its own.
    of_runs: bool = False
    # Standard error of the log centre where there is one process only, else None.
    error: float | None = None
    # Degrees of freedom of `error`.
    freedom: float = 0.0


@dataclass(frozen=True)
class Known:
    """What one side knows of a case."""

    # Its id.
    case: str
    # Hotlap's own, or what another tool's file says of the machine, by the names of BLOCKING and
    # others; None where that tool's files never say anything.
    environment: Environment | Mapping[str, str] | None
    # As in a result, or UNREADABLE.
    status: str = "ok"
    # Of a status that is not ok.
    reason: str = ""
    # By the metric's name.
    metrics: dict[str, Sample] = field(default_factory=dict)
    # By the counter's name.
    counters: dict[str, int] = field(default_factory=dict)
    # What else the file says of the case, which is no metric of hotlap: named where it moved far.
    extras: dict[str, float] = field(default_factory=dict)
    # The worst distance of the outputs from the reference, as a share of what is allowed.
    deviation: float | None = None
    # The task metric on the validation split.
    task: Task | None = None
    # Where the weights come from.
    weights: str = ""
    # Of the repository, with a + where there were uncommitted changes; empty if not known.
    commit: str = ""
    # Where its benchmark or workload stands.
    place: Place | None = None

    @property
    def setting(self) -> dict[str, str]:
        """What two results must share to be compared."""
        if isinstance(self.environment, Environment):
            return self.environment.setting
        return {name: value for name, value in (self.environment or {}).items() if name in BLOCKING}

    @property
    def good(self) -> bool:
        return self.status in GOOD

    @property
    def steady(self) -> bool:
        return not self.reason.startswith("not_steady")


@dataclass(frozen=True)
class Side:
    """What one run says, or several of the same code together."""

    path: Path
    cases: dict[str, Known]
    # When, as the file says (ISO 8601), or empty.
    measured: str = ""
    # The race of `hotlap ab` that it is one side of, or empty: two such sides share their blocks.
    raced: str = ""
    # Who wrote the file.
    tool: str = "hotlap"
    # How many runs it holds.
    runs: int = 1
    # When each of several was measured, where all say it.
    moments: tuple[str, ...] = ()
    # Of the bytes of each file.
    digests: tuple[str, ...] = ()
    # Lines for the reader of a verdict.
    notes: tuple[str, ...] = ()


def moment(text: str) -> float | None:
    """Returns the seconds since 1970 of an ISO 8601 time, UTC where it names no zone; None where it
    is none.
    """
    try:
        parsed = datetime.fromisoformat(text)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def stated_fields(fields: Mapping[str, object]) -> dict[str, str]:
    """Returns as text what a file says of its machine: what it leaves out is no field."""
    return {name: str(value) for name, value in fields.items() if value not in (None, "", 0)}


def differs(base: Known, head: Known) -> Differences:
    """Returns what of two environments forbids a comparison, and what is only noted."""
    mine, theirs = base.environment, head.environment
    if isinstance(mine, Environment) and isinstance(theirs, Environment):
        return mine.differs(theirs)
    if mine is None and theirs is None:
        return Differences({}, {})
    if mine is None or theirs is None or isinstance(mine, Environment) or isinstance(theirs, Environment):
        return Differences({"tool": (_whose(mine), _whose(theirs))}, {})
    if not mine or not theirs:
        return Differences({"machine": (_named(mine), _named(theirs))}, {})
    different = {
        name: (mine.get(name, "unknown"), theirs.get(name, "unknown"))
        for name in {**mine, **theirs}
        if mine.get(name) != theirs.get(name)
    }
    blocking = {name: pair for name, pair in different.items() if name in BLOCKING}
    return Differences(blocking, {name: pair for name, pair in different.items() if name not in blocking})


def _whose(environment: Environment | Mapping[str, str] | None) -> str:
    return "hotlap" if isinstance(environment, Environment) else "another tool"


def _named(environment: Mapping[str, str]) -> str:
    return ", ".join(environment.values()) or "not named in the file"
