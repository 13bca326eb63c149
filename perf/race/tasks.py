"""What a worker can be asked to do, one method a message.

A worker holds one case; its heavy imports are its backend's own.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..lookup import plugins, workloads
from ..lookup.workloads import resized
from ..machine import cuda_devices, memory, survey, telemetry
from ..machine.power import Meter
from ..oracle.arrays import named, on_split, on_stored, rmse
from ..terms import contract
from ..terms.case import Case, Workload
from ..terms.contract import Artefact, Backend, Step, modules
from ..terms.reasons import Reason, Refusal, full
from . import origin, profiling, timing
from . import priority as scheduling

if TYPE_CHECKING:
    from ..artefacts.manifest import Signature

TAIL_MOST = 200


class Tasks:
    def __init__(self, report: Callable[[str], None]) -> None:
        self.report = report
        self.workload: Workload | None = None

    def preload(self, names: list[str]) -> dict[str, Any]:
        """Imports what the backend asks for; the peak up to here is the process' baseline."""
        workloads.add_user_folder()
        for name in names:
            if "torch" in sys.modules:
                sys.modules["torch"].manual_seed(
                    0
                )  # as workloads.load does: a module may make weights when it is imported
            importlib.import_module(name)
        return {"peak_bytes": memory.peak_bytes(), "threads": len(os.listdir("/proc/self/task"))}

    def loaded(self, repository: str, worktree: str) -> tuple[dict[str, str], list[str]]:
        """What of a repository this worker runs (origin.py)."""
        return origin.loaded(Path(repository), Path(worktree))

    def reap(self, pid: int) -> int:
        """How a forked worker ended (fork server only): its exit status, or minus the signal's
        number.
        """
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def prefer(self) -> str:
        """Whether the scheduler lets this worker be preferred, and if not why."""
        return scheduling.claim()

    def ready(self, reference: tuple[str, str]) -> None:
        workloads.ready(workloads.Reference(*reference), self.report)

    def refer(
        self,
        reference: tuple[str, str],
        batch: int,
        precisions: list[str],
        target: str,
        folder: str,
        threads: int,
    ) -> dict[str, Any]:
        """Makes the reference outputs of a race; this worker stays its referee."""
        from ..artefacts import signature
        from ..oracle import reference as oracle

        self.workload = workloads.load(workloads.Reference(*reference))
        found = oracle.refer(self.workload, batch, precisions, target, Path(folder), threads)
        return {
            **found,
            "signature": signature.of_reference(Path(folder) / "random.npz", self.workload.dynamic),
        }

    def score(self, path: str) -> dict[str, float]:
        """The task metrics of outputs that another worker stored."""
        from ..oracle import reference as oracle

        assert self.workload is not None
        return oracle.score(self.workload, Path(path))

    def peaks(self, precision: str, threads: int) -> dict[str, float]:
        from ..machine import peaks

        return peaks.measure(precision, threads)

    def build(
        self, reference: tuple[str, str], case: Case, folder: str, threads: int, fed: Signature
    ) -> dict[str, Any]:
        """Builds the case cold.

        Returns the ledger of its phases in s, the bytes that it left behind, and what its manifest
        says of the model (fed: as the harness feeds it).
        """
        case = msgspec.convert(case, Case)
        ledger: dict[str, float] = {}
        workload = resized(workloads.load(workloads.Reference(*reference)), case.batch)
        path = Path(folder)
        try:
            plugins.backend(case.backend).build(workload, case, path, partial(phases, ledger))
        except Exception as error:  # a library that cannot write may raise anything
            if (refusal := short_of_space(error, path, workload)) is not None:
                raise refusal from error
            raise
        shared = path / "ledger.json"
        if shared.exists():
            ledger |= json.loads(shared.read_text())
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        return {"ledger": ledger, "artefact_bytes": size, **self.built(path, case, fed)}

    def built(self, folder: Path, case: Case, fed: Signature) -> dict[str, Any]:
        from ..artefacts import signature
        from ..artefacts.manifest import Signature

        fixed = getattr(plugins.backend(case.backend), "FIXED_BATCH", lambda _: False)(case)
        return {
            "signature": signature.of_files(folder, msgspec.convert(fed, Signature), fixed),
            "libraries": survey.versions(),
        }

    def verify(
        self,
        reference: tuple[str, str],
        case: Case,
        folder: str,
        oracle: str,
        terms: int,
        metric: dict[str, Any] | None,
        threads: int,
        fed: Signature,
    ) -> dict[str, Any]:
        """Proves the case for a device that is not here; what was found is in the folder
        (ladder.py). Returns what its manifest says of the model.
        """
        import torch

        from ..oracle import ladder

        torch.set_num_threads(threads)
        case = msgspec.convert(case, Case)
        spent: dict[str, float] = {}
        workload = resized(workloads.load(workloads.Reference(*reference)), case.batch)
        backend: Any = plugins.backend(case.backend)
        rungs = backend.verify(workload, case, Path(folder), partial(phases, spent))
        yardstick = ladder.Yardstick(
            Path(oracle), case.precision, terms, metric, workload.evaluate, case.batch
        )
        ladder.climb(rungs, Path(folder), yardstick, spent)
        return self.built(Path(folder), case, fed)

    def load(
        self, reference: tuple[str, str], case: Case, folder: str, oracle: str, threads: int
    ) -> dict[str, Any]:
        """Loads the case and calls it once.

        Returns the times in s and the peak of each phase in bytes.
        """
        import numpy as np

        priority = scheduling.claim()
        self.case = msgspec.convert(case, Case)
        self.backend: Backend = plugins.backend(self.case.backend)
        asked_for_source = False

        def workload() -> Workload:
            nonlocal asked_for_source
            asked_for_source = True
            if not reference[0]:
                raise Refusal(
                    "invalid_input",
                    f"{self.case.backend} asks for the module's source, which an artefact does not hold",
                )
            return resized(workloads.load(workloads.Reference(*reference)), self.case.batch)

        self.artefact = Artefact(self.case, Path(folder), threads, workload, Path(oracle))
        with np.load(Path(oracle) / "timed.npz", allow_pickle=False) as stored:
            inputs = named(stored, "in")
            self.expected = named(stored, "ref")
        self.device, self.no_device = cuda_devices.attach(self.case.target)
        self.before = self.device.read() if self.device else None
        self.throttle: set[str] = set()
        memory.reset()
        start = time.perf_counter()
        self.step: Step = self.backend.load(self.artefact)
        load_s, load_peak = time.perf_counter() - start, memory.peak_bytes()
        pool = [
            tuple(np.ascontiguousarray(value[index]) for value in inputs) for index in range(len(inputs[0]))
        ]
        memory.reset()
        start = time.perf_counter()
        self.pool = pool
        self.placed = [self.step.place(arrays) for arrays in pool]
        self.step.call(self.placed[0])
        self.step.synchronize()
        first_call_s = time.perf_counter() - start
        self.at = random.randrange(len(self.placed))
        self.limits: list[float] | None = None
        self.clock = (
            timing.event_clock
            if self.case.target.startswith("cuda:") and "torch" in modules(self.backend, self.case)
            else timing.host_clock
        )
        no_meter: Reason | None = None
        self.meter: Meter | None = None
        try:
            self.meter = Meter(self.case.target)
        except Refusal as refusal:
            no_meter = refusal.reason
        return {
            "load_s": load_s,
            "first_call_s": first_call_s,
            "load_peak_bytes": load_peak,
            "first_call_peak_bytes": memory.peak_bytes(),
            "no_meter": no_meter,
            "needs_source": asked_for_source,
            "priority": priority,
        }

    def check(self, inputs: str, outputs: str) -> None:
        on_stored(self.run, Path(inputs), Path(outputs))

    def evaluate(self, inputs: str, outputs: str) -> None:
        """Runs a whole split (N, ...) and stores the outputs (N, ...)."""
        import numpy as np

        with np.load(inputs, allow_pickle=False) as stored:
            given = named(stored, "in")
        np.savez(
            outputs,
            allow_pickle=False,
            **{
                f"out{index}": value for index, value in enumerate(on_split(self.run, given, self.case.batch))
            },
        )

    def place(self) -> Any:
        """Where the work ran, by the backend's own evidence."""
        return self.backend.placement(self.artefact, self.step)

    def warm(
        self, sample_s: float, longest_s: float, cap_s: float, limits: list[float] | None
    ) -> timing.WarmUp:
        """limits: for each rotating input, how far (RMSE) the outputs of a timed call may be from
        the reference; None: not checked.
        """
        self.limits = limits
        self.warmed = timing.warm_up(self.step, self.rotate, self.clock, sample_s, longest_s, cap_s)
        memory.reset()
        return self.warmed

    def turn(self) -> dict[str, Any]:
        """One sample, and how far its last outputs are from the reference of their own inputs."""
        feed = self.rotate(self.warmed.calls + 1)
        last = (self.at - 1) % len(self.placed)
        meter = self.meter if self.meter and self.meter.gpu is None else None
        before = meter.read() if meter else ()
        taken, outputs = timing.take_turn(self.step, feed, self.clock)
        joules = meter.between(before, meter.read()) if meter else None
        self.watch()
        return {"turn": taken, "joules": joules, "rmse": self.inspect(outputs, last)}

    def tail(self, cap_s: float) -> list[float]:
        """Single calls, each timed alone: the only samples that percentiles may come from."""
        calls = max(1, min(TAIL_MOST, int(cap_s / max(self.warmed.call_s, 1e-9))))
        self.clock(self.step, self.rotate(1))
        return [self.clock(self.step, [inputs])[0] for inputs in self.rotate(calls)]

    def watch(self) -> None:
        """What holds the GPU's clocks right after work: at the end of a block it is idle.

        Raises Refusal(crashed) where it is lost.
        """
        if self.device is not None and self.before is not None and self.before.throttle is not None:
            self.throttle.update(self.device.throttle())

    def energy(self, cap_s: float) -> dict[str, Any]:
        """On a GPU: the energy of enough calls, or why there is none.

        Raises Refusal(crashed) where the GPU is lost.
        """
        assert self.meter is not None and self.meter.gpu is not None
        if self.case.option("l2", "warm") == "cold":
            return {
                "window": None,
                "reason": Reason(
                    "unsupported_op",
                    "l2:cold empties the cache between calls, and the energy of that cannot be told from"
                    " theirs",
                ),
            }
        try:
            return {
                "window": self.meter.gpu.window(lambda: self.alone(self.rotate(1)[0]), cap_s),
                "reason": None,
            }
        except Refusal as refusal:
            if refusal.reason.code == "crashed":
                raise
            return {"window": None, "reason": refusal.reason}

    def profile(self, file: str, schedule: contract.Schedule, about: dict[str, Any]) -> contract.Overhead:
        """The backend's own profile of `active` calls in the file.

        What the profiler adds to a call is measured beside it. Raises Refusal.
        """
        schedule = msgspec.convert(schedule, contract.Schedule)
        for inputs in self.rotate(schedule.warmup):
            self.alone(inputs)
        plain = [contract.timed(partial(self.alone, inputs)) for inputs in self.rotate(schedule.wait)]
        raw = self.artefact.folder / "profile.json"
        feed = [self.pool[index % len(self.pool)] for index in range(schedule.warmup + schedule.active)]
        profiled = self.backend.profile(self.artefact, self.step, feed, schedule, raw)  # type: ignore[attr-defined]  # optional; the parent has looked
        overhead = contract.Overhead.of(plain, profiled)
        profiling.seal(raw, Path(file), {**about, "schedule": schedule, "overhead": overhead})
        return overhead

    def alone(self, inputs: Any) -> None:
        self.step.call(inputs)
        self.step.synchronize()

    def finish(self) -> dict[str, Any]:
        """The peak in bytes, and what the GPU says. Raises Refusal(crashed) where it is lost."""
        span = (
            telemetry.Span(self.before, self.device.read(), tuple(sorted(self.throttle)))
            if self.device and self.before
            else None
        )
        return {
            "run_peak_bytes": memory.peak_bytes(),
            "gpu": memory.gpu_bytes(self.case.target, self.device),
            "device": span,
            "no_device": self.no_device,
        }

    def run(self, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        outputs = self.step.call(self.step.place(arrays))
        self.step.synchronize()
        return self.step.fetch(outputs)

    def rotate(self, count: int) -> list[Any]:
        """The next `count` inputs in turn, so that no call repeats the one before."""
        feed = [self.placed[(self.at + offset) % len(self.placed)] for offset in range(count)]
        self.at = (self.at + count) % len(self.placed)
        return feed

    def inspect(self, outputs: Any, index: int) -> float:
        """RMSE of a timed call's outputs.

        Raises Refusal(stale_output or accuracy) above the limit.
        """
        if self.limits is None:
            return 0.0
        fetched = self.step.fetch(outputs)
        distances = [
            rmse(fetched, [value[other] for value in self.expected]) for other in range(len(self.placed))
        ]
        if not distances[index] <= self.limits[index]:
            for other, distance in enumerate(distances):
                if other != index and distance <= self.limits[other]:
                    raise Refusal(
                        "stale_output",
                        f"a timed call returned the outputs of other inputs (number {other} instead of"
                        f" {index})",
                    )
            raise Refusal(
                "accuracy",
                f"a timed call's outputs are off by {distances[index]:.3g} RMSE, at most"
                f" {self.limits[index]:.3g} was expected from the check",
            )
        return distances[index]


def short_of_space(error: Exception, folder: Path, workload: Workload) -> Refusal | None:
    """Where the disk has less room than the weights take.

    OpenVINO says no more than `basic_ios::clear: iostream error` then, and removes what it wrote.
    """
    if isinstance(error, (Refusal, MemoryError)) or full(error) is not None:
        return None
    free = shutil.disk_usage(folder).free
    need = sum(value.numel() * value.element_size() for value in workload.module.state_dict().values())
    if free >= need:
        return None
    detail = (
        f"{free} bytes are free and the weights alone take {need}; free space or choose another --out"
        f" ({type(error).__name__}: {str(error)[:200]})"
    )
    return Refusal("out_of_space", detail)


@contextlib.contextmanager
def phases(spent: dict[str, float], name: str) -> Iterator[None]:
    """Adds the seconds inside to those of the phase."""
    start = time.perf_counter()
    try:
        yield
    finally:
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - start
