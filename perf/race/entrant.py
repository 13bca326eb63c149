"""What takes part in a race, over all its blocks, and how its worker is let run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..lookup.cases import by_default
from ..lookup.workloads import Reference
from ..oracle.arrays import named
from ..terms.case import Case, Plan
from ..terms.contract import Backend
from ..terms.reasons import Reason, Refusal
from ..terms.result import Deviation, Placement
from .handle import Worker
from .messages import LoadCase, Preload
from .observations import Block, Observations
from .servers import Servers


@dataclass(frozen=True)
class Oracle:
    """What entrants are checked against."""

    # The workload; an artefact by itself has none, its text is empty.
    reference: Reference
    # Folder of the reference outputs (oracle/reference.py).
    folder: Path
    # The worker that made them and scores others; None for an artefact, where nothing is scored.
    referee: Worker | None
    # Kinds of inputs that outputs are compared on.
    kinds: tuple[str, ...] = ("random", "real")
    # Whether an artefact of int8 was judged by its task metric when it was built.
    judged: bool = False

    @property
    def inputs(self) -> Path:
        """The folder of the inputs without their outputs: all that a worker is told."""
        return self.folder / "inputs"

    @cached_property
    def timed(self) -> list[Any]:
        """The reference outputs (K, B, ...) of the rotating inputs."""
        return self._references("timed")

    @cached_property
    def fresh(self) -> list[Any]:
        """The reference outputs (K, B, ...) of the inputs that are kept back."""
        return self._references("fresh")

    def _references(self, kind: str) -> list[Any]:
        import numpy as np

        with np.load(self.folder / f"{kind}.npz", allow_pickle=False) as stored:
            return named(stored, "ref")


@dataclass
class Entrant:
    """One case in a race."""

    case: Case
    backend: Backend
    # Modules that its workers import before anything is timed.
    preload: list[str]
    # Environment variables of its workers.
    environment: Mapping[str, str]
    # Folders of what its build left, of the outputs that are checked, and of its workers' logs.
    artefact: Path
    outputs: Path
    log: Path
    seen: Observations
    oracle: Oracle
    # Whether it does work of its own (the pace, null) instead of the workload's.
    own_work: bool = False
    # The user's function around the model, where that is what is timed.
    pipeline: str = ""
    # Which module of `preload` is the workload's: it has a fork server of its own.
    model: str = ""
    placement: Placement | None = None
    deviation: Deviation | None = None
    # Each rotating input's largest RMSE that a timed call's outputs may have; None: not compared.
    limits: list[float] | None = None
    # What each block's audit had to say; empty where it was nothing.
    doubts: list[str] = field(default_factory=list)
    # Why it left the race; its blocks up to then are kept.
    refusal: Reason | None = None
    fell_back: bool = False
    # Why it was let go although nothing is wrong with it; empty while it races.
    let_go: str = ""
    # Whether its first load asked for the module's source; None before.
    needs_source: bool | None = None
    worker: Worker | None = None
    # Names of processes that its workers had started outside their sessions.
    strays: set[str] = field(default_factory=set)
    # Seconds of the present block that went to its worker.
    spent_s: float = 0.0
    # Seconds of each window in which its energy was weighed.
    weighed_s: list[float] = field(default_factory=list)

    @property
    def live(self) -> bool:
        return self.refusal is None and not self.let_go

    def latencies(self) -> list[list[float]]:
        """Seconds a call of each sample, a list for each block."""
        return [[turn.call_s for turn in block.turns] for block in self.seen.blocks]

    def running(self) -> Worker:
        """Its present worker, which there must be."""
        assert self.worker is not None
        return self.worker

    def end_worker(self) -> None:
        """Ends its present worker, if it has one."""
        if self.worker is not None:
            self.worker.kill()
            self.strays.update(self.worker.strays)
            self.worker = None


class Attempt:
    """Lets one entrant's worker run, stops it afterwards, and turns a refusal into its end.

    The others go on.
    """

    def __init__(self, entrant: Entrant) -> None:
        self.entrant = entrant

    def __enter__(self) -> None:
        self.start = time.monotonic()
        if self.entrant.worker is not None:
            self.entrant.worker.go()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        self.entrant.spent_s += time.monotonic() - self.start
        if isinstance(error, Refusal):
            self.entrant.refusal = error.reason
            self.entrant.end_worker()
            return True
        if self.entrant.worker is not None and error is None:
            self.entrant.worker.stop()
        return False


def threads(case: Case, plan: Plan, servers: Servers) -> int:
    """Returns the threads of a case's workers: in a box a library by default has one for each core
    that it sees.
    """
    if servers.box is not None and by_default(case):
        return servers.box.cores
    return case.threads(plan.threads)


def load_worker(entrant: Entrant, plan: Plan, servers: Servers, name: str, fresh: bool) -> Block:
    """Gives the entrant its next worker, loaded: a fresh process, or forked where its imports allow
    it. Raises Refusal.

    name: of the log file.
    """
    log = entrant.log / f"{name}.txt"
    start = time.perf_counter()
    if fresh:
        entrant.worker = Worker.start(entrant.environment, log)
    else:
        entrant.worker, fresh = servers.worker(entrant.environment, entrant.preload, entrant.model, log)
    worker = entrant.worker
    if servers.box is not None:
        worker.hold(servers.box)
    imported = worker.ask(Preload(entrant.preload), plan.timeout_s)
    start_s = time.perf_counter() - start
    oracle = entrant.oracle
    loaded = worker.ask(
        LoadCase(
            oracle.reference,
            entrant.case,
            str(entrant.artefact),
            str(oracle.inputs),
            str(oracle.folder) if getattr(entrant.backend, "KNOWS_REFERENCE", False) else "",
            threads(entrant.case, plan, servers),
            plan.priority == "raised",
            entrant.pipeline,
        ),
        plan.timeout_s,
    )
    entrant.seen.no_meter = loaded.no_meter
    entrant.needs_source = loaded.needs_source
    return Block(
        fresh=fresh,
        start_s=start_s,
        import_peak_bytes=imported.peak_bytes,
        load_s=loaded.load_s,
        first_call_s=loaded.first_call_s,
        load_peak_bytes=loaded.load_peak_bytes,
        first_call_peak_bytes=loaded.first_call_peak_bytes,
        priority=loaded.priority,
    )
