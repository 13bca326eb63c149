"""What a backend's file holds, and the values that pass between it and the harness."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from .case import Case, Workload
from .reasons import Reason

if TYPE_CHECKING:
    import numpy as np

    from .result import Placement, Rung

# Inputs or outputs of one call, each (B, ...).
Arrays = tuple["np.ndarray", ...]

# Times what runs within it as the named phase of a build.
Phase = Callable[[str], AbstractContextManager[None]]


def modules(backend: Backend, case: Case) -> tuple[str, ...]:
    """Returns the modules that a worker of the case imports before it is timed (PRELOAD)."""
    return backend.PRELOAD(case) if callable(backend.PRELOAD) else backend.PRELOAD


def nothing() -> None:
    """Does nothing: synchronises a step whose every call returns finished outputs."""


@dataclass(frozen=True)
class Artefact:
    """The folder that a build left, and what loading it needs besides."""

    case: Case
    folder: Path
    # Threads that the step may use.
    threads: int
    # Makes the workload anew, for the backends that need the module itself.
    workload: Callable[[], Workload]
    # Folder of the race's reference outputs (oracle/reference.py), for a backend that says
    # KNOWS_REFERENCE and computes nothing; None for all others.
    reference: Path | None
    # Whether axes that may have any size keep it; else they have the case's.
    free: bool = False


@dataclass(frozen=True)
class Step:
    """A loaded case, ready to be called."""

    # Takes what `place` returned and is not synchronised; all that the timing loop calls.
    call: Callable[[Any], Any]
    # From float32 and integer arrays (B, ...) to inputs in the case's precision on its target.
    place: Callable[[Arrays], Any]
    # From outputs to arrays on the host that nothing changes later (oracle.arrays.comparable).
    fetch: Callable[[Any], Arrays]
    # Waits until the outputs of all calls so far are finished.
    synchronize: Callable[[], None] = nothing
    # The backend's own state, for `placement`.
    about: Any = None
    # Runs before each timed call on a CUDA device, outside of its time: empties the L2 cache where
    # the case says so.
    between: Callable[[], None] = nothing


@dataclass(frozen=True)
class Proven:
    """A rung of the ladder that a case reached without its device."""

    rung: Rung
    # What shows it, in words.
    evidence: str
    # Where the device would do the work, where the build tells.
    placement: Placement | None = None
    # Of L3, the lowered graph on the CPU; the harness holds its outputs against the oracle.
    lowered: Callable[[Arrays], Arrays] | None = None


class Backend(Protocol):
    """A way to run a workload: what a file of backends/ holds. Importing it is light."""

    # One line, which `hotlap doctor` prints.
    SUMMARY: str
    # Option name -> its values, the default first.
    OPTIONS: dict[str, tuple[str, ...]]
    # Modules that a worker imports before it is timed, or how a case tells them.
    PRELOAD: tuple[str, ...] | Callable[[Case], tuple[str, ...]]

    def available(self, target: str) -> Reason | None:
        """Returns why the backend cannot run on the target here; None where it can."""

    def supports(self, case: Case) -> Reason | None:
        """Returns why the backend cannot run the case anywhere; None where it can."""

    def variables(self, case: Case, threads: int) -> dict[str, str]:
        """Returns the environment variables that a worker of the case starts with."""

    def build(self, workload: Workload, case: Case, folder: Path, phase: Phase) -> None:
        """Builds the case into the folder. Raises Refusal."""

    def load(self, artefact: Artefact) -> Step:
        """Loads what was built. Raises Refusal."""

    def placement(self, artefact: Artefact, step: Step) -> Placement:
        """Returns where the calls of the step really ran."""


class Schedule(msgspec.Struct, frozen=True):
    """Which calls a profiler records, and what of them."""

    # Calls without the profiler, whose median is the truth.
    wait: int = 20
    # Calls whose events are thrown away.
    warmup: int = 3
    # Calls that are recorded.
    active: int = 5
    # Python's stacks as well, which cost most.
    stacks: bool = False
    # The shapes of every operator's inputs.
    shapes: bool = True
    # Every allocation.
    memory: bool = True


class Overhead(msgspec.Struct, frozen=True):
    """What a profiler costs: median times of calls without it and of those it recorded, s."""

    plain_s: float
    profiled_s: float
    # How many calls each median is of.
    calls: tuple[int, int]

    @property
    def factor(self) -> float:
        """How many times as long a recorded call takes."""
        return self.profiled_s / self.plain_s

    @classmethod
    def of(cls, plain: Sequence[float], profiled: Sequence[float]) -> Overhead:
        """Summarises the times of single calls, s."""
        return cls(statistics.median(plain), statistics.median(profiled), (len(plain), len(profiled)))


def timed(call: Callable[[], Any]) -> float:
    """Returns the seconds of one call, which must return when its work is done."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
