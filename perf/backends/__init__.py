"""A way to run a workload is one file here, or in a package that the entry point group
`hotlap.backends` names.

The file's name is the backend's name; a leading underscore makes it none. What it holds:

SUMMARY: str
    One line for `hotlap doctor`.
OPTIONS: dict[str, tuple[str, ...]]
    Option -> permitted values, the default first.
PRELOAD: tuple[str, ...], or (case) -> the same
    Modules that a worker imports before anything is timed.
TARGETS: tuple[str, ...] (optional)
    How the targets begin for which it is one of the default backends; without it all.
SELF_CONTAINED: bool, or (case) -> bool (optional)
    Whether `load` needs nothing but the folder, so that hotlap bench-artefact can run it without
    the module's source; without it, whether there is a `build`. The first load that is seen has
    the last word.
FIXED_BATCH: (case) -> bool (optional)
    Whether what `build` leaves takes the case's batch size only, whatever a file beside it takes.
available(target) -> Reason | None
    None if it can run on the target; looks, imports nothing heavy.
supports(case) -> Reason | None
    The same for precision and options.
variables(case, threads) -> dict[str, str]
    Environment of the worker: threads and binding by the library's own means.
build(workload, case, folder, phase) -> None
    Writes what `load` needs into the folder; `with phase("export"):` names the time.
load(artefact) -> Step
placement(artefact, step) -> Placement
    Where the work really ran; called once after the outputs were checked.
verify(workload, case, folder, phase) -> Iterator[Proven] (optional)
    Proves a case for a GPU that is not here, rung by rung from L0 upwards (ladder.py). Raises
    Refusal where it cannot go on; what it gave until then is kept.
profile(artefact, step, feed, schedule, path) -> list[float] (optional)
    The library's own profiler over the calls of the feed, of which the last `active` are written
    to path, JSON that `hotlap review` reads (profiling.py). Returns their seconds.

`build` and `load` raise Refusal where they cannot go on. Nothing is unpickled from a folder.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..case import Case, Workload
from ..reasons import Reason

if TYPE_CHECKING:
    import numpy as np

    from ..result import Placement, Rung

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
