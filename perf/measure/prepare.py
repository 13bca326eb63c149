"""From cases to entrants: reference outputs once for all of them, then each case built in a process
of its own, with cold caches.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..artefacts import writing
from ..artefacts.manifest import Signature
from ..lookup import plugins
from ..lookup.cases import BASELINE, LIBRARY_DEFAULTS
from ..lookup.workloads import Reference
from ..oracle import ladder
from ..oracle.ladder import Ladder
from ..race.handle import Worker
from ..race.observations import Observations
from ..race.origin import HERE, Origin
from ..race.race import Entrant, Oracle
from ..race.servers import Servers
from ..terms.case import Case, Plan
from ..terms.contract import modules
from ..terms.reasons import Refusal, room

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
# glibc keeps its memory instead of giving activations back after each call (shared/MEASURING.md:
# 1.8x there, and most of the noise).
ALLOCATORS = {"keep": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000"}, "default": {}}


class Preparation:
    """The entrants of one workload in one folder. `close` ends the referee."""

    def __init__(
        self, reference: Reference, folder: Path, plan: Plan, servers: Servers, origin: Origin = HERE
    ) -> None:
        self.reference = reference
        self.folder = folder
        self.plan = plan
        self.servers = servers
        self.origin = origin
        self.oracle: Oracle
        self.info: dict[str, Any] = {}
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
        machine's peaks. here: their device is. Raises Refusal.
        """
        plan, oracle = self.plan, self.folder / "oracle"
        with room():
            oracle.mkdir(parents=True, exist_ok=True)
        referee = self.torch_worker("referee")
        self.oracle = Oracle(self.reference, oracle, referee)
        if train:
            referee.ask("ready", TRAINING_TIMEOUT_S, report, reference=self.reference)
        tell("making the reference outputs")
        case, precisions = cases[0], list(dict.fromkeys(case.precision for case in cases))
        asked: dict[str, Any] = {
            "batch": case.batch,
            "precisions": precisions,
            "target": case.target if here else "cpu",
            "folder": str(oracle),
        }
        self.info = referee.ask(
            "refer", plan.timeout_s, reference=self.reference, threads=plan.threads, **asked
        )
        if case.target == "cpu":
            self.peaks = {
                precision: referee.ask("peaks", plan.timeout_s, precision=precision, threads=plan.threads)
                for precision in dict.fromkeys(["fp32", *precisions])
            }
        referee.stop()

    def build(self, case: Case) -> Entrant:
        """Raises Refusal."""
        backend = plugins.backend(case.backend)
        name = folder_name(case)
        folder, log = self.folder / "artefacts" / name, self.folder / "log" / name
        environment = {**worker_environment(case, self.plan.threads), **self.origin.variables()}
        built: dict[str, Any] = {"ledger": {}, "artefact_bytes": 0}
        with room():
            folder.mkdir(parents=True, exist_ok=True)
            if hasattr(backend, "build"):
                builder = self.torch_worker(f"{name}/build")
                asked = {"folder": str(folder), "threads": self.plan.threads, "fed": self.info["signature"]}
                try:
                    built = builder.ask(
                        "build", self.plan.timeout_s, reference=self.reference, case=case, **asked
                    )
                finally:
                    builder.kill()
            if not own_work(case):
                self.describe(case, folder, built)
        own = modules(backend, case)
        model = (
            [self.reference.module] if "torch" in own and not writing.self_contained(backend, case) else []
        )
        seen = Observations(
            case,
            built["ledger"],
            {**self.info, "artefact_bytes": built["artefact_bytes"]},
            self.peaks.get(case.precision, {}),
            fp32=self.peaks.get("fp32", {}),
        )
        outputs, kind = self.folder / "outputs" / name, kind_of_worker(case, own, bool(model))
        return Entrant(
            case,
            backend,
            [*own, *model],
            environment,
            folder,
            outputs,
            log,
            seen,
            self.oracle,
            own_work=own_work(case),
            kind=kind,
        )

    def prove(self, case: Case) -> Ladder:
        """How far the case gets without its device, in a process of its own: whatever ends that
        process, the rungs up to there stay.
        """
        folder = self.folder / "artefacts" / folder_name(case)
        folder.mkdir(parents=True, exist_ok=True)
        prover = self.torch_worker(f"{folder_name(case)}/verify")
        asked = {
            "oracle": str(self.oracle.folder),
            "terms": self.info["terms"],
            "metric": self.info["task"],
            "threads": self.plan.threads,
            "fed": self.info["signature"],
        }
        built: dict[str, Any] = {}
        try:
            built = prover.ask(
                "verify",
                self.plan.timeout_s,
                reference=self.reference,
                case=case,
                folder=str(folder),
                **asked,
            )
            found = ladder.read(folder)
        except Refusal as refusal:
            found = msgspec.structs.replace(ladder.read(folder), stopped=refusal.reason)
        finally:
            prover.kill()
        try:
            with room():
                self.describe(case, folder, built, found)
        except Refusal as refusal:
            found = msgspec.structs.replace(found, stopped=found.stopped or refusal.reason)
        return found

    def describe(self, case: Case, folder: Path, built: dict[str, Any], proven: Ladder | None = None) -> None:
        """The manifest of what was built: complete where a case was proven without its device, else
        check and placement complete it. Raises OSError.
        """
        signature = msgspec.convert(built.get("signature", self.info["signature"]), Signature)
        writing.describe(
            folder, case, self.info, signature, self.oracle.folder, built.get("libraries"), proven
        )

    def torch_worker(self, name: str) -> Worker:
        """A worker that has torch and the workload's module, as eager would have it.

        Raises Refusal.
        """
        case = Case("any", BASELINE)
        environment = {**worker_environment(case, self.plan.threads), **self.origin.variables()}
        own = modules(plugins.backend(BASELINE), case)
        return self.servers.worker(
            kind_of_worker(case, own, True),
            environment,
            [*own, self.reference.module],
            self.folder / "log" / f"{name}.txt",
        )[0]

    def close(self) -> None:
        if hasattr(self, "oracle"):
            self.oracle.referee.kill()


def folder_name(case: Case) -> str:
    """The name of its folders, within those of its race."""
    return f"{case.backend}-{case.precision}" + (f"-{case.target}" if case.built_only else "") + case.settings


def kind_of_worker(case: Case, own: Sequence[str], model: bool) -> str:
    """For servers.py: what it imports but for which workload's module."""
    return " ".join((case.backend, *own, *(["model"] if model else [])))


def own_work(case: Case) -> bool:
    return bool(getattr(plugins.backend(case.backend), "OWN_WORK", False))


def clean() -> dict[str, str]:
    """The user's environment without what decides a race."""
    return {name: value for name, value in os.environ.items() if not name.startswith(SET_BY_US)}


def worker_environment(case: Case, threads: int) -> dict[str, str]:
    """The environment of a case's worker. Under library defaults it is the user's own.

    NumPy's OpenBLAS would start threads at import, and a process with threads cannot be forked
    safely: it gets one thread, unless it is what is measured.
    """
    if dict(LIBRARY_DEFAULTS).items() <= dict(case.options).items():
        return {"OPENBLAS_NUM_THREADS": "1", **os.environ}
    allocator = ALLOCATORS[case.option("allocator", "keep")]
    return {
        **clean(),
        "OPENBLAS_NUM_THREADS": "1",
        **allocator,
        **plugins.backend(case.backend).variables(case, threads),
    }
