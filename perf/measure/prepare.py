"""From cases to entrants: reference outputs once for all of them, then each case built in a process
of its own, with cold caches.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from ..artefacts import writing
from ..artefacts.manifest import Signature
from ..lookup import plugins
from ..lookup.cases import BASELINE, by_default
from ..lookup.workloads import Reference
from ..oracle import ladder
from ..oracle.ladder import Ladder
from ..race import messages
from ..race.entrant import Entrant, Oracle
from ..race.handle import Worker
from ..race.observations import Observations
from ..race.origin import HERE, Origin
from ..race.servers import Servers
from ..terms.case import Case, Plan
from ..terms.contract import modules
from ..terms.reasons import Reason, Refusal, room
from ..terms.work import Subject
from .builds import Builds

# A workload may have to be trained before anything can be measured.
TRAINING_TIMEOUT_S = 4 * 3600.0
# Settings of thread pools and allocators decide a race: a worker has those of the harness, never
# what happens to be in the user's shell.
SET_BY_US = (
    "OMP_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "OPENBLAS_",
    "MALLOC_",
    "LD_PRELOAD",
    "TORCHINDUCTOR_",
    "NVIDIA_TF32_",
)
# glibc keeps its memory instead of giving activations back after each call: the largest source of
# difference between processes of a model with activations of some MB (docs/measuring.md).
ALLOCATORS = {"keep": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000"}, "default": {}}


class Preparation:
    """Makes the entrants of one workload in one folder. `close` ends the referee."""

    oracle: Oracle
    subject: Subject
    # Inputs and outputs as the harness feeds them.
    signature: Signature
    # Precisions in which eager does not run, or not alike each time.
    refused: dict[str, Reason]

    def __init__(
        self, reference: Reference, folder: Path, plan: Plan, servers: Servers, origin: Origin = HERE
    ) -> None:
        self.reference = reference
        self.folder = folder
        self.plan = plan
        self.servers = servers
        self.origin = origin
        # What earlier builds have left; None: every case is built.
        self.builds: Builds | None = None
        # Precision -> what this machine can do at most.
        self.peaks: dict[str, dict[str, float]] = {}

    def refer(
        self,
        cases: Sequence[Case],
        train: bool,
        report: Callable[[str], None],
        tell: Callable[[str], None],
        here: bool = True,
    ) -> None:
        """Trains if need be, makes the reference outputs for the cases of one race, measures this
        machine's peaks. Raises Refusal.

        report: gets a training's lines. tell: gets what happens next. here: the cases' device is.
        """
        plan, folder = self.plan, self.folder / "oracle"
        with room():
            folder.mkdir(parents=True, exist_ok=True)
        referee = self.torch_worker("referee")
        self.oracle = Oracle(self.reference, folder, referee)
        if train:
            referee.ask(messages.MakeReady(self.reference), TRAINING_TIMEOUT_S, report)
        tell("making the reference outputs")
        precisions = list(dict.fromkeys(case.precision for case in cases))
        batch, target = cases[0].batch, cases[0].target
        request = messages.Refer(
            self.reference, batch, precisions, target if here else "cpu", str(folder), plan.threads
        )
        referred = referee.ask(request, plan.timeout_s)
        self.subject, self.signature, self.refused = referred.subject, referred.signature, referred.refused
        self.reference = self.reference._replace(axis=referred.axis, returns=referred.returns)
        self.oracle = Oracle(self.reference, folder, referee, referred.kinds)
        for note in referred.notes:
            report(f"{self.reference.text}: {note}")
        if target == "cpu":
            self.peaks = {
                precision: referee.ask(messages.MeasurePeaks(precision, plan.threads), plan.timeout_s)
                for precision in dict.fromkeys(["fp32", *precisions])
            }
        referee.stop()

    def build(self, case: Case) -> Entrant:
        """The case built cold in a process of its own, ready to enter a race. Raises Refusal."""
        backend = plugins.backend(case.backend)
        name = folder_name(case)
        folder = self.folder / "artefacts" / name
        built = messages.Built(self.signature, {})
        with room():
            folder.mkdir(parents=True, exist_ok=True)
            if hasattr(backend, "build"):
                built = self.built(case, folder)
            if not own_work(case):
                self.describe(case, folder, built)
        own = modules(backend, case)
        needs_model = "torch" in own and not writing.self_contained(backend, case)
        model = self.reference.module if needs_model else ""
        return Entrant(
            case,
            backend,
            [*own, *filter(None, [model])],
            {**worker_environment(case, case.threads(self.plan.threads)), **self.origin.variables()},
            folder,
            self.folder / "outputs" / name,
            self.folder / "log" / name,
            Observations(
                case,
                built.ledger,
                self.subject,
                self.peaks.get(case.precision, {}),
                self.peaks.get("fp32", {}),
                built.artefact_bytes,
            ),
            self.oracle,
            own_work=own_work(case),
            model=model,
        )

    def built(self, case: Case, folder: Path) -> messages.Built:
        """What a build in a process of its own leaves in the folder, or one of the same before.

        Raises Refusal, OSError.
        """
        builds = self.builds if writing.self_contained(plugins.backend(case.backend), case) else None
        if builds is not None and (earlier := builds.take(case, folder)) is not None:
            return earlier
        threads = case.threads(self.plan.threads)
        request = messages.BuildCase(self.reference, case, str(folder), threads, self.signature)
        built = self.ask_once(request, f"{folder_name(case)}/build")
        if builds is not None:
            builds.keep(case, folder, built)
        return built

    def fingerprint(self) -> str:
        """A hash of what the workload is built from. Raises Refusal."""
        assert self.oracle.referee is not None
        self.oracle.referee.go()
        try:
            return self.oracle.referee.ask(messages.Fingerprint(), self.plan.timeout_s)
        finally:
            self.oracle.referee.stop()

    def prove(self, case: Case) -> Ladder:
        """How far the case gets without its device, in a process of its own: whatever ends that
        process, the rungs up to there stay.
        """
        folder = self.folder / "artefacts" / folder_name(case)
        folder.mkdir(parents=True, exist_ok=True)
        request = messages.ProveCase(
            self.reference,
            case,
            str(folder),
            str(self.oracle.folder),
            self.subject.work.terms,
            self.subject.task,
            self.plan.threads,
            self.signature,
        )
        built = messages.Built(self.signature, {})
        stopped = None
        try:
            built = self.ask_once(request, f"{folder_name(case)}/verify")
        except Refusal as refusal:
            stopped = refusal.reason
        reached = ladder.read(folder)
        reached = msgspec.structs.replace(reached, stopped=stopped or reached.stopped)
        try:
            with room():
                self.describe(case, folder, built, reached)
        except Refusal as refusal:
            reached = msgspec.structs.replace(reached, stopped=reached.stopped or refusal.reason)
        return reached

    def describe(self, case: Case, folder: Path, built: messages.Built, proven: Ladder | None = None) -> None:
        """Writes the manifest of what was built: complete where a case was proven without its
        device, else check and placement complete it. Raises OSError.
        """
        libraries = built.libraries or None
        writing.describe(folder, case, self.subject, built.signature, self.oracle.folder, libraries, proven)

    def ask_once(self, request: messages.BuildCase | messages.ProveCase, log: str) -> messages.Built:
        """The reply of a worker that lives for this request only. Raises Refusal.

        What it left half-written beside the artefacts, under a name with a dot, goes with it.
        """
        worker = self.torch_worker(log)
        try:
            return worker.ask(request, self.plan.timeout_s)
        finally:
            worker.kill()
            for part in (self.folder / "artefacts").glob(".*"):
                shutil.rmtree(part, ignore_errors=True)

    def torch_worker(self, name: str) -> Worker:
        """A worker that has torch and the workload's module, as eager would have it.

        Raises Refusal.
        """
        case = Case("any", BASELINE)
        environment = {**worker_environment(case, self.plan.threads), **self.origin.variables()}
        own, model = modules(plugins.backend(BASELINE), case), self.reference.module
        log = self.folder / "log" / f"{name}.txt"
        return self.servers.worker(environment, [*own, *filter(None, [model])], model, log)[0]

    def close(self) -> None:
        """Ends the referee, if there is one yet."""
        if hasattr(self, "oracle") and self.oracle.referee is not None:
            self.oracle.referee.kill()


def folder_name(case: Case) -> str:
    """The name of a case's folders within those of its race."""
    return f"{case.backend}-{case.precision}" + (f"-{case.target}" if case.built_only else "") + case.settings


def own_work(case: Case) -> bool:
    """Whether the backend does work of its own instead of the workload's, as the pace does."""
    return bool(getattr(plugins.backend(case.backend), "OWN_WORK", False))


def clean() -> dict[str, str]:
    """The user's environment variables without those that decide a race."""
    return {name: value for name, value in os.environ.items() if not name.startswith(SET_BY_US)}


def worker_environment(case: Case, threads: int) -> dict[str, str]:
    """The environment variables of a case's worker; under library defaults the user's own.

    NumPy's OpenBLAS would start threads at import, and a process with threads cannot be forked
    safely: it gets one thread, unless it is what is measured.
    """
    if by_default(case):
        return {"OPENBLAS_NUM_THREADS": "1", **os.environ}
    allocator = ALLOCATORS[case.option("allocator", "keep")]
    return {
        **clean(),
        "OPENBLAS_NUM_THREADS": "1",
        **allocator,
        **plugins.backend(case.backend).variables(case, threads),
    }
