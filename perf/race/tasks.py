"""What a worker does for each request of messages.py."""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec

from ..artefacts.manifest import Signature
from ..lookup import plugins, workloads
from ..lookup.workloads import resized
from ..machine import cuda_devices, memory, survey, telemetry
from ..machine.power import Meter
from ..oracle.arrays import named, on_split, on_stored
from ..terms.case import Case, Workload
from ..terms.contract import Arrays, Artefact, Backend, Overhead, Step, modules, timed
from ..terms.reasons import Reason, Refusal, full
from ..terms.result import Placement
from . import messages, origin, profiling, timing
from . import priority as scheduling

# Most single calls that a tail takes.
TAIL_MOST = 200
# Seconds of calls with inputs that were kept back, in which as many of them are called as fit.
AUDIT_S = 0.02


class Tasks:
    """Does what messages.py lists, a method a request. It holds one case; its heavy imports are its
    backend's own.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report = report
        self.workload: Workload | None = None

    def do(self, request: messages.AnyRequest) -> Any:
        """The reply to a request. Raises Refusal, or whatever a library raises."""
        return METHODS[type(request)](self, request)

    def preload(self, request: messages.Preload) -> messages.Imported:
        """Imports what the backend asks for; the peak up to here is the process' baseline."""
        workloads.add_user_folder()
        for name in request.names:
            if "torch" in sys.modules:
                # As workloads.load does: a module may make weights when it is imported.
                sys.modules["torch"].manual_seed(0)
            with workloads.in_place():
                importlib.import_module(name)
        return messages.Imported(memory.peak_bytes(), len(os.listdir("/proc/self/task")))

    def trace_source(self, request: messages.TraceSource) -> messages.LoadedSource:
        return messages.LoadedSource(*origin.loaded(Path(request.repository), Path(request.worktree)))

    def reap(self, request: messages.Reap) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(request.pid, 0)[1])

    def prefer(self, request: messages.Prefer) -> str:
        return scheduling.claim()

    def make_ready(self, request: messages.MakeReady) -> None:
        workloads.ready(request.reference, self.report)

    def refer(self, request: messages.Refer) -> messages.Referred:
        from ..artefacts import signature
        from ..oracle import reference

        folder = Path(request.folder)
        self.workload = workloads.load(request.reference)
        referral = reference.refer(
            self.workload, request.batch, request.precisions, request.target, folder, request.threads
        )
        fed = signature.of_reference(folder / "real.npz", referral.free, referral.subject)
        return messages.Referred(
            referral.subject,
            fed,
            referral.axis,
            referral.returns,
            referral.kinds,
            referral.notes,
            referral.refused,
        )

    def examine(self, request: messages.Examine) -> int:
        from ..oracle import reference

        return reference.own_batch(workloads.load(request.reference))

    def fingerprint(self, request: messages.Fingerprint) -> str:
        from ..lookup.fingerprint import fingerprint

        assert self.workload is not None
        return fingerprint(self.workload)

    def score(self, request: messages.Score) -> dict[str, float]:
        from ..oracle import reference

        assert self.workload is not None
        return reference.score(self.workload, Path(request.path))

    def measure_peaks(self, request: messages.MeasurePeaks) -> dict[str, float]:
        from ..machine import peaks

        return peaks.measure(request.precision, request.threads)

    def build(self, request: messages.BuildCase) -> messages.Built:
        """Builds the case in its folder, with the seconds of each phase."""
        case, folder = request.case, Path(request.folder)
        ledger: dict[str, float] = {}
        workload = resized(workloads.load(request.reference), case.batch)
        backend = plugins.backend(case.backend)
        if workloads.holds_file(workload.module) and not getattr(backend, "TAKES_FILES", False):
            raise Refusal(
                "unsupported_op", f"the module is an ONNX file, and {case.backend} takes modules of torch"
            )
        try:
            backend.build(workload, case, folder, partial(phases, ledger))
        except Exception as error:  # a library that cannot write may raise anything
            if (refusal := short_of_space(error, folder, workload)) is not None:
                raise refusal from error
            raise
        shared = folder / "ledger.json"
        if shared.exists():
            ledger |= msgspec.json.decode(shared.read_bytes(), type=dict[str, float])
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        return msgspec.structs.replace(built(folder, case, request.fed), ledger=ledger, artefact_bytes=size)

    def verify(self, request: messages.ProveCase) -> messages.Built:
        """Climbs the ladder; what was reached is in the folder (ladder.py)."""
        import torch

        from ..oracle import ladder

        torch.set_num_threads(request.threads)
        case, folder = request.case, Path(request.folder)
        spent: dict[str, float] = {}
        workload = resized(workloads.load(request.reference), case.batch)
        backend: Any = plugins.backend(case.backend)
        rungs = backend.verify(workload, case, folder, partial(phases, spent))
        yardstick = ladder.Yardstick(
            Path(request.oracle), case.precision, request.terms, request.task, workload.evaluate, case.batch
        )
        ladder.climb(rungs, folder, yardstick, spent)
        return built(folder, case, request.fed)

    def locate(self, request: messages.LocateFault) -> str:
        """Looks for the first wrong node; the part of the file that is wrong is in the folder."""
        import torch

        from ..lowering import deviation, locate

        torch.set_num_threads(request.threads)
        case = request.case
        workload = resized(workloads.load(request.reference), case.batch)
        artefact = Artefact(case, Path(request.artefact), request.threads, lambda: workload, None)
        outputs = {kind: Path(request.outputs) / f"{kind}.npz" for kind in request.kinds}
        refused = deviation.worst(Path(request.oracle), outputs, case.precision, request.terms)
        backend = plugins.backend(case.backend)
        return locate.report(workload, artefact, backend, refused, Path(request.folder), request.shown)

    def load_case(self, request: messages.LoadCase) -> messages.LoadedCase:
        """Loads the case, places the rotating inputs and calls it once."""
        priority = scheduling.claim() if request.preferred else scheduling.AS_ASKED
        self.case = case = request.case
        self.backend: Backend = plugins.backend(case.backend)
        asked_for_source = False

        def workload() -> Workload:
            nonlocal asked_for_source
            asked_for_source = True
            if not request.reference.text:
                raise Refusal(
                    "invalid_input",
                    f"{case.backend} asks for the module's source, which an artefact does not hold",
                )
            return resized(workloads.load(request.reference), case.batch)

        reference = Path(request.oracle) if request.oracle else None
        self.artefact = Artefact(case, Path(request.folder), request.threads, workload, reference)
        timed, fresh = (batches(Path(request.inputs) / name) for name in ("timed.npz", "fresh.npz"))
        self.device, self.no_device = cuda_devices.attach(case.target)
        self.before = self.device.read() if self.device else None
        self.throttle: set[str] = set()
        memory.reset()
        start = perf_counter()
        self.step: Step = self.backend.load(self.artefact)
        if request.pipeline:
            from . import pipelines

            self.step = pipelines.around(self.step, request.pipeline)
        load_s, load_peak_bytes = perf_counter() - start, memory.peak_bytes()
        self.pool, self.kept_back = timed, fresh
        memory.reset()
        start = perf_counter()
        self.placed = [self.step.place(arrays) for arrays in self.pool]
        self.step.call(self.placed[0])
        self.step.synchronize()
        first_call_s = perf_counter() - start
        self.last = 0
        on_stream = case.target.startswith("cuda:") and "torch" in modules(self.backend, case)
        self.clock = timing.event_clock if on_stream else timing.host_clock
        self.meter, no_meter = meter_of(case.target)
        return messages.LoadedCase(
            load_s,
            first_call_s,
            load_peak_bytes,
            memory.peak_bytes(),
            asked_for_source,
            priority,
            no_meter,
        )

    def break_down(self, request: messages.BreakDown) -> messages.Breakdown:
        from . import pipelines

        return pipelines.broken_down(self.step, request.pipeline)

    def run_stored(self, request: messages.RunStored) -> None:
        on_stored(self.run, Path(request.inputs), Path(request.outputs))

    def run_split(self, request: messages.RunSplit) -> None:
        import numpy as np

        with np.load(request.inputs, allow_pickle=False) as stored:
            split = named(stored, "in")
        outputs = on_split(self.run, split, self.case.batch)
        arrays = {f"out{index}": value for index, value in enumerate(outputs)}
        np.savez(request.outputs, allow_pickle=False, **arrays)

    def place(self, request: messages.TellPlacement) -> Placement:
        return self.backend.placement(self.artefact, self.step)

    def warm(self, request: messages.Warm) -> timing.WarmUp:
        self.warmed = timing.warm_up(
            self.step, self.rotate, self.clock, request.sample_s, request.longest_s, request.cap_s
        )
        memory.reset()
        return self.warmed

    def take_turn(self, request: messages.TakeTurn) -> messages.Sampled:
        """One sample and its last outputs.

        How many calls it has is drawn by lot, so that no step knows which of them is looked at.
        """
        calls = self.warmed.calls
        feed = self.rotate(1 + random.randint(-(-3 * calls // 4), 5 * calls // 4))
        meter = self.meter if self.meter and self.meter.gpu is None else None
        before = meter.read() if meter else ()
        turn, outputs = timing.take_turn(self.step, feed, self.clock)
        joules = meter.between(before, meter.read()) if meter else None
        self.watch()
        fetched = packed(self.step.fetch(outputs)) if request.compared else []
        return messages.Sampled(turn, joules, fetched, self.last, perf_counter())

    def audit(self, request: messages.Audit) -> messages.Audited | None:
        """Calls with inputs that no call has had, whose outputs are fetched at once, each beside a
        call with inputs that rotate.

        One is enough where a call takes long.
        """
        if not self.kept_back:
            return None
        pairs = max(1, min(len(self.kept_back), int(AUDIT_S / max(self.warmed.call_s, 1e-9))))
        chosen = random.sample(range(len(self.kept_back)), pairs)
        placed, place_s = zip(
            *(clocked(self.step.place, self.kept_back[index]) for index in chosen), strict=True
        )
        fresh_s, fetch_s, seen_s, fetched = [], [], [], []
        for inputs in placed:
            spent_s, outputs = self.clock(self.step, [inputs])
            arrays, spent_to_fetch_s = clocked(self.step.fetch, outputs)
            fresh_s.append(spent_s)
            fetch_s.append(spent_to_fetch_s)
            fetched.append(arrays)
            seen_s.append(self.clock(self.step, self.rotate(1))[0])
        compared = random.randrange(pairs)
        both = (*self.kept_back[chosen[compared]], *fetched[compared])
        copy_s = clocked(lambda arrays: [array.copy() for array in arrays], both)[1]
        outputs_sent = packed(fetched[compared])
        return messages.Audited(
            fresh_s, seen_s, list(place_s), fetch_s, copy_s, outputs_sent, chosen[compared]
        )

    def take_tail(self, request: messages.TakeTail) -> list[float]:
        calls = max(1, min(TAIL_MOST, int(request.cap_s / max(self.warmed.call_s, 1e-9))))
        self.clock(self.step, self.rotate(1))
        return [self.clock(self.step, [inputs])[0] for inputs in self.rotate(calls)]

    def weigh(self, request: messages.Weigh) -> messages.Weighed:
        """The energy of enough calls. Raises Refusal(crashed) where the GPU is lost."""
        assert self.meter is not None and self.meter.gpu is not None
        if self.case.option("l2", "warm") == "cold":
            why = "l2:cold empties the cache between calls, and the energy of that cannot be told from theirs"
            return messages.Weighed(None, Reason("unsupported_op", why))
        try:
            window = self.meter.gpu.window(lambda: self.call_alone(self.rotate(1)[0]), request.cap_s)
        except Refusal as refusal:
            if refusal.reason.code == "crashed":
                raise
            return messages.Weighed(None, refusal.reason)
        return messages.Weighed(window)

    def record(self, request: messages.Record) -> Overhead:
        """The backend's own profile of `active` calls in the file; what the profiler adds to a call
        is measured beside it. Raises Refusal.
        """
        schedule = request.schedule
        for inputs in self.rotate(schedule.warmup):
            self.call_alone(inputs)
        plain = [timed(partial(self.call_alone, inputs)) for inputs in self.rotate(schedule.wait)]
        raw = self.artefact.folder / "profile.json"
        feed = [self.pool[index % len(self.pool)] for index in range(schedule.warmup + schedule.active)]
        backend: Any = self.backend  # `profile` is optional; the parent has looked
        profiled = backend.profile(self.artefact, self.step, feed, schedule, raw)
        overhead = Overhead.of(plain, profiled)
        profiling.seal(raw, Path(request.file), {**request.about, "schedule": schedule, "overhead": overhead})
        return overhead

    def finish(self, request: messages.Finish) -> messages.Finished:
        """The block's peak, and what the GPU says. Raises Refusal(crashed) where it is lost."""
        span = None
        if self.device is not None and self.before is not None:
            span = telemetry.Span(self.before, self.device.read(), tuple(sorted(self.throttle)))
        gpu = memory.gpu_bytes(self.case.target, self.device)
        return messages.Finished(memory.peak_bytes(), gpu, span, self.no_device)

    def watch(self) -> None:
        """Notes what holds the GPU's clocks right after work: at the end of a block it is idle.

        Raises Refusal(crashed) where it is lost.
        """
        if self.device is not None and self.before is not None and self.before.throttle is not None:
            self.throttle.update(self.device.throttle())

    def call_alone(self, inputs: Any) -> None:
        self.step.call(inputs)
        self.step.synchronize()

    def run(self, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        outputs = self.step.call(self.step.place(arrays))
        self.step.synchronize()
        return self.step.fetch(outputs)

    def rotate(self, count: int) -> list[Any]:
        """`count` of the rotating inputs in an order drawn by lot, in which none follows itself."""
        feed, others = [], len(self.placed) - 1
        for _ in range(count):
            self.last = (self.last + random.randint(1, others)) % len(self.placed) if others else 0
            feed.append(self.placed[self.last])
        return feed


# Request -> the method that does it: what a worker can be asked for, and nothing else.
METHODS: dict[type, Callable[[Tasks, Any], Any]] = {
    messages.Reap: Tasks.reap,
    messages.Preload: Tasks.preload,
    messages.Prefer: Tasks.prefer,
    messages.TraceSource: Tasks.trace_source,
    messages.MakeReady: Tasks.make_ready,
    messages.Refer: Tasks.refer,
    messages.Examine: Tasks.examine,
    messages.Fingerprint: Tasks.fingerprint,
    messages.Score: Tasks.score,
    messages.MeasurePeaks: Tasks.measure_peaks,
    messages.BuildCase: Tasks.build,
    messages.ProveCase: Tasks.verify,
    messages.LocateFault: Tasks.locate,
    messages.LoadCase: Tasks.load_case,
    messages.BreakDown: Tasks.break_down,
    messages.RunStored: Tasks.run_stored,
    messages.RunSplit: Tasks.run_split,
    messages.TellPlacement: Tasks.place,
    messages.Warm: Tasks.warm,
    messages.TakeTurn: Tasks.take_turn,
    messages.Audit: Tasks.audit,
    messages.TakeTail: Tasks.take_tail,
    messages.Weigh: Tasks.weigh,
    messages.Record: Tasks.record,
    messages.Finish: Tasks.finish,
}


def built(folder: Path, case: Case, fed: Signature) -> messages.Built:
    """What the manifest says of a model that this process built. fed: as the harness feeds it."""
    from ..artefacts import signature

    fixed = getattr(plugins.backend(case.backend), "FIXED_BATCH", lambda _: False)(case)
    return messages.Built(signature.of_files(folder, fed, fixed), survey.versions(survey.LOADERS))


def batches(file: Path) -> list[Arrays]:
    """The batches of inputs that a file holds; none where there is no such file."""
    import numpy as np

    if not file.is_file():
        return []
    with np.load(file, allow_pickle=False) as stored:
        inputs = named(stored, "in")
    return [tuple(np.asarray(value[index], order="C") for value in inputs) for index in range(len(inputs[0]))]


def packed(arrays: Arrays) -> list[messages.Array]:
    """Arrays as they go to the parent."""
    return [messages.Array(array.dtype.str, array.shape, array.tobytes()) for array in arrays]


def clocked(function: Callable[[Any], Any], argument: Any) -> tuple[Any, float]:
    """What a function returns, and the seconds that it took."""
    start = perf_counter()
    result = function(argument)
    return result, perf_counter() - start


def meter_of(target: str) -> tuple[Meter | None, Reason | None]:
    """The energy counter of a target, or why there is none."""
    try:
        return Meter(target), None
    except Refusal as refusal:
        return None, refusal.reason


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
    start = perf_counter()
    try:
        yield
    finally:
        spent[name] = spent.get(name, 0.0) + perf_counter() - start
