"""The main path, top to bottom: cases -> races -> (refer, build, race with check) -> answers -> results file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import plugins, workloads
from .answer import answer, unmeasured
from .case import Case
from .cases import BASELINE, LIBRARY_DEFAULTS, races
from .entrant import Entrant
from .observations import Observations
from .race import Lane, Race
from .reasons import Reason, Refusal
from .result import Plan, Result
from .rundir import RunFolder
from .servers import Servers

TRAINING_TIMEOUT_S = 4 * 3600.0
# Settings of thread pools and allocators decide a race: a worker has those of the harness, never what happens to be in the user's shell.
SET_BY_US = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "MALLOC_", "LD_PRELOAD", "TORCHINDUCTOR_")
# glibc keeps its memory instead of giving activations back after each call (shared/MEASURING.md: 1.8x there, and most of the noise).
ALLOCATORS = {"keep": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000"}, "default": {}}


class Progress:
    """Who watches: `line` for what is worth a line, `race` for each change within a race, `finished` when its results are final."""

    def line(self, text: str) -> None:
        """One event."""

    def race(self, group: str, lanes: Sequence[Lane], event: str) -> None:
        """The race's entrants as they stand, and what happens next."""

    def finished(self, group: str, results: Sequence[Result]) -> None:
        """Final results of one race."""


def measure(cases: Sequence[Case], run: RunFolder, plan: Plan, environment: str, progress: Progress, train: bool = True) -> list[Result]:
    """Measures every case, race by race. `run` has the results after each block, so a Ctrl-C or a crash loses at most one."""
    collected: list[Result] = []
    servers = Servers(run.folder, plan.timeout_s, progress.line)
    try:
        for group, members in races(cases):
            results = Entry(group, members, run, plan, environment, progress, servers).go(train)
            collected += results
            progress.finished(group, results)
    finally:
        servers.close()
    return collected


class Entry:
    """One race from its cases to their results. What cannot take part gets its reason; the others are built, checked and timed."""

    def __init__(self, group: str, cases: Sequence[Case], run: RunFolder, plan: Plan, environment: str, progress: Progress, servers: Servers) -> None:
        self.servers = servers
        self.group, self.cases, self.run, self.plan, self.environment, self.progress = group, cases, run, plan, environment, progress
        self.race_id = f"{run.id}/{group}"
        self.folder = run.folder / "work" / group
        self.reference = workloads.Reference(cases[0].workload, run.results.references.get(cases[0].workload, ""))
        self.lanes: list[Lane] = []
        self.settled: dict[Case, Result] = {}
        self.stopped_by = ""

    def go(self, train: bool) -> list[Result]:
        willing = [case for case in self.cases if self.accepts(case)]
        workers = [case for case in willing if not own_work(case)]
        if not workers:
            self.settle(willing, Reason("unsupported_target", "no other entrant of this race can run here, so there is nothing to keep pace with"))
            return self.results()
        shutil.rmtree(self.folder, ignore_errors=True)
        referee: Entrant | None = None
        try:
            referee = self.torch_worker("referee")
            info, peaks = self.refer(referee, train)
            referee.stop()
            for case in willing:
                self.tell(f"building {case.backend}")
                try:
                    self.lanes.append(self.build(case, info, peaks))
                except Refusal as refusal:
                    self.settle([case], refusal.reason)
            race = Race(self.reference, self.lanes, self.plan, self.oracle, referee, self.servers, self.tell, self.journal)
            race.run()
            self.stopped_by = race.stopped_by
        except Refusal as refusal:
            self.settle(willing, refusal.reason)
        except KeyboardInterrupt:
            unbuilt = [case for case in willing if all(lane.case != case for lane in self.lanes)]
            self.settle(unbuilt, Reason("interrupted", "Ctrl-C before it was built; go on with: hotlap run --resume"))
            self.journal()
            raise
        finally:
            if referee is not None:
                referee.kill()
        self.journal(interrupted=False)
        return self.results()

    @property
    def oracle(self) -> Path:
        return self.folder / "oracle"

    def accepts(self, case: Case) -> bool:
        backend = plugins.backend(case.backend)
        reason = backend.available(case.target) or backend.supports(case)
        if reason is not None:
            self.settle([case], reason)
        return reason is None

    def refer(self, referee: Entrant, train: bool) -> tuple[dict[str, Any], dict[str, float]]:
        """Trains if need be, makes the reference outputs, measures this machine's peaks."""
        plan, case = self.plan, self.cases[0]
        self.oracle.mkdir(parents=True, exist_ok=True)
        if train:
            referee.ask("ready", TRAINING_TIMEOUT_S, self.progress.line, reference=self.reference)
        self.tell("making the reference outputs")
        asked: dict[str, Any] = {"batch": case.batch, "precisions": [case.precision], "target": case.target, "folder": str(self.oracle)}
        info = referee.ask("refer", plan.timeout_s, reference=self.reference, threads=plan.threads, **asked)
        peaks = referee.ask("peaks", plan.timeout_s, precision=case.precision, threads=plan.threads) if case.target == "cpu" else {}
        return info, peaks

    def build(self, case: Case, info: dict[str, Any], peaks: dict[str, float]) -> Lane:
        """Builds one case in a process of its own, with cold caches. Raises Refusal."""
        backend = plugins.backend(case.backend)
        name = case.backend + "".join(f"[{name}:{value}]" for name, value in case.options)
        artefact, log = self.folder / "artefacts" / name, self.folder / "log" / name
        artefact.mkdir(parents=True, exist_ok=True)
        environment = worker_environment(case, self.plan.threads)
        built: dict[str, Any] = {"ledger": {}, "artefact_bytes": 0}
        if hasattr(backend, "build"):
            builder = self.torch_worker(f"{name}/build")
            try:
                built = builder.ask("build", self.plan.timeout_s, reference=self.reference, case=case, folder=str(artefact), threads=self.plan.threads)
            finally:
                builder.kill()
        preload = [*backend.PRELOAD, *([self.reference.module] if "torch" in backend.PRELOAD else [])]
        seen = Observations(case, built["ledger"], {**info, "artefact_bytes": built["artefact_bytes"]}, peaks)
        return Lane(case, backend, preload, environment, artefact, self.folder / "outputs" / name, log, seen, own_work=own_work(case))

    def torch_worker(self, name: str) -> Entrant:
        """A worker that has torch and the workload's module, as eager would have it. Raises Refusal."""
        environment = worker_environment(Case("any", BASELINE), self.plan.threads)
        modules = [*plugins.backend(BASELINE).PRELOAD, self.reference.module]
        return self.servers.worker(BASELINE, environment, modules, self.folder / "log" / f"{name}.txt")[0]

    def journal(self, interrupted: bool = True) -> None:
        """Writes what is known now; until the race has ended it counts as interrupted."""
        for lane in self.lanes:
            self.settled[lane.case] = answer(lane, self.lanes[0], self.race_id, self.plan, self.environment, self.stopped_by, interrupted)
        self.run.put(self.settled.values())
        self.tell("")

    def settle(self, cases: Sequence[Case], reason: Reason) -> None:
        for case in cases:
            self.settled[case] = unmeasured(case, self.race_id, self.plan, reason, self.environment)
        self.run.put(self.settled.values())

    def results(self) -> list[Result]:
        return [self.settled[case] for case in self.cases]

    def tell(self, event: str) -> None:
        self.progress.race(self.group, self.lanes, event)


def own_work(case: Case) -> bool:
    return bool(getattr(plugins.backend(case.backend), "OWN_WORK", False))


def clean() -> dict[str, str]:
    """The user's environment without what decides a race."""
    return {name: value for name, value in os.environ.items() if not name.startswith(SET_BY_US)}


def worker_environment(case: Case, threads: int) -> dict[str, str]:
    """The environment of a case's worker. Under library defaults it is the user's own.

    NumPy's OpenBLAS would start threads at import, and a process with threads cannot be forked safely: it gets one thread, unless it is what is measured.
    """
    if dict(LIBRARY_DEFAULTS).items() <= dict(case.options).items():
        return {"OPENBLAS_NUM_THREADS": "1", **os.environ}
    allocator = ALLOCATORS[case.option("allocator", "keep")]
    return {**clean(), "OPENBLAS_NUM_THREADS": "1", **allocator, **plugins.backend(case.backend).variables(case, threads)}
