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

Arrays = tuple["np.ndarray", ...]


Phase = Callable[[str], AbstractContextManager[None]]


def modules(backend: Backend, case: Case) -> tuple[str, ...]:
    """Its PRELOAD for the case."""
    return backend.PRELOAD(case) if callable(backend.PRELOAD) else backend.PRELOAD


def nothing() -> None:
    """Synchronise where every call returns finished outputs."""


@dataclass(frozen=True)
class Artefact:
    """What a build left behind.

    `workload` makes the workload anew, for the backends that need the module itself.

    reference: folder of the race's reference outputs (reference.py).
    """

    case: Case
    folder: Path
    threads: int
    workload: Callable[[], Workload]
    reference: Path


@dataclass(frozen=True)
class Step:
    """A loaded case.

    `call` takes what `place` returned and is not synchronised; it is all that the timing loop
    calls.

    place: float32 and integer arrays (B, ...) -> inputs in the case's precision on its target.
    fetch: outputs -> float arrays on the host (float64 stays, all else becomes float32). about: the
    backend's own state, for `placement`. between: before each timed call on a CUDA device, outside
    of its time: empties the L2 cache where the case says so.
    """

    call: Callable[[Any], Any]
    place: Callable[[Arrays], Any]
    fetch: Callable[[Any], Arrays]
    synchronize: Callable[[], None] = nothing
    about: Any = None
    between: Callable[[], None] = nothing


@dataclass(frozen=True)
class Proven:
    """A rung of the ladder, reached.

    lowered: of L3, the lowered graph on the CPU; the harness holds its outputs against the oracle.
    """

    rung: Rung
    evidence: str
    placement: Placement | None = None
    lowered: Callable[[Arrays], Arrays] | None = None


class Backend(Protocol):
    SUMMARY: str
    OPTIONS: dict[str, tuple[str, ...]]
    PRELOAD: tuple[str, ...] | Callable[[Case], tuple[str, ...]]

    def available(self, target: str) -> Reason | None: ...
    def supports(self, case: Case) -> Reason | None: ...
    def variables(self, case: Case, threads: int) -> dict[str, str]: ...
    def build(self, workload: Workload, case: Case, folder: Path, phase: Phase) -> None: ...
    def load(self, artefact: Artefact) -> Step: ...
    def placement(self, artefact: Artefact, step: Step) -> Placement: ...


class Schedule(msgspec.Struct, frozen=True):
    """wait: calls without the profiler, whose median is the truth.

    warmup: calls whose events are thrown away. active: calls that are recorded.

    stacks: Python's stacks as well, which cost most. shapes, memory: of every operator, every
    allocation.
    """

    wait: int = 20
    warmup: int = 3
    active: int = 5
    stacks: bool = False
    shapes: bool = True
    memory: bool = True


class Overhead(msgspec.Struct, frozen=True):
    """s: medians of `calls` calls without the profiler and of those it recorded."""

    plain_s: float
    profiled_s: float
    calls: tuple[int, int]

    @property
    def factor(self) -> float:
        return self.profiled_s / self.plain_s

    @classmethod
    def of(cls, plain: Sequence[float], profiled: Sequence[float]) -> Overhead:
        return cls(statistics.median(plain), statistics.median(profiled), (len(plain), len(profiled)))


def timed(call: Callable[[], Any]) -> float:
    """Seconds of one call that returns when its work is done."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
