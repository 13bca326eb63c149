"""Whether the file can be trusted, before any of its figures: what is missing, what cannot be, what
makes a figure a bound instead of a value.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from ...perf.terms.units import scaled
from ..facts import intervals, timeline
from ..facts.audit import FEW, JITTER_NS
from ..facts.facts import Facts
from ..tables import captured
from ..tables.trace import NONE, Trace

Grade = Literal["exact", "lower bound", "unknown"]
# How many times as long a call takes under the profiler before its cost is spoken of.
VISIBLE = 1.05
# Categories of events that last and are no operator, call, annotation or frame, of all eras.
OTHERS = {
    "ac2g", "async_cpu_to_gpu", "async_gpu", "cuda_sync", "cuda_driver", "cuda_profiler_range", "fwdbwd",
    "forward_backward", "gpu_user_annotation", "overhead", "Overhead", "Trace", "trace", "Metadata",
    "collective_comm", "hotlap",
}  # fmt: skip
# Of the device's busy time: more outside of all steps is said.
OUTSIDE = 0.01
# How a GPU's trace is recorded.
RECORD = "profile again with ProfilerActivity.CUDA, fewer steps, and no other profiler beside it"
# What profiles by the nodes of a graph are.
BY_NODE = {
    "onnxruntime": (
        "a profile of ONNX Runtime: nodes by the host's clock; of a GPU only what the host waited for"
    ),
    "openvino": (
        "a profile of OpenVINO: means of each layer over the recorded calls, to one or two us, laid one after"
        " the other; when a layer ran is not recorded"
    ),
}
# Groups of figures.
FIGURES = ("window", "busy", "idle", "launches", "operators", "steps", "memory")


class Trust(NamedTuple):
    """How far a trace can be trusted."""

    # What a reader must know, the most important first.
    notes: tuple[str, ...]
    # Of each of FIGURES.
    grades: dict[str, Grade]
    # Whether nothing of the file is lost, and something of what it is about is there.
    whole: bool


def judge(facts: Facts) -> Trust:
    """Returns how far a trace can be trusted."""
    notes: list[str] = []
    grades: dict[str, Grade] = dict.fromkeys(FIGURES, "exact")
    judge_file(facts.trace, notes, grades)
    judge_capture(facts.trace, notes)
    judge_audit(facts, notes, grades)
    if not len(facts.line.gpu):
        notes.append(without_gpu(facts))
        grades |= dict.fromkeys(("window", "busy", "idle", "launches"), "unknown")
    elif facts.trace.source == "tensorrt":
        judge_layers(facts, notes, grades)
    else:
        judge_gpu(facts, notes, grades)
    judge_records(facts, notes, grades)
    return Trust(tuple(notes), grades, facts.trace.damage.whole and not of_nothing(facts))


def without_gpu(facts: Facts) -> str:
    """Returns what a trace without GPU events is: a CPU's, a GPU's that lost them, or of
    nothing.
    """
    if lost_kernels(facts):
        return (
            f"a GPU's trace without its kernels: {facts.audit.launched:,} launches, and nothing that they"
            f" launched, so nothing is known of the device; {RECORD}"
        )
    if of_nothing(facts):
        return (
            "no GPU events, and nothing else that is read: does the loop call step(), and does the profiler's"
            " schedule reach its active steps?"
        )
    return "no GPU events"


def lost_kernels(facts: Facts) -> bool:
    """Whether a trace has launches of kernels and not one GPU event."""
    return not len(facts.trace.gpu) and facts.audit.launched > 0


def of_nothing(facts: Facts) -> bool:
    """Whether what a trace is about is not in it: a device's events, or any event that is read."""
    trace = facts.trace
    read = (trace.gpu, trace.calls, trace.operators, trace.notes, trace.frames)
    return lost_kernels(facts) or not any(map(len, read))


def judge_file(trace: Trace, notes: list[str], grades: dict[str, Grade]) -> None:
    """Adds what of the file is missing or was not used."""
    damage = trace.damage
    if damage.cut:
        notes.append(
            f"the file is cut: {trace.events:,} whole events before the cut, nothing of what came after"
        )
        grades |= dict.fromkeys(FIGURES, "lower bound")
    for why, count in damage.lost.most_common():
        notes.append(f"{count:,} events cannot be read ({why})")
        grades |= dict.fromkeys(FIGURES, "lower bound")
    if damage.lost_bytes:
        notes[-1] += f"; {damage.lost_bytes:,} bytes of the file are in no event"
    notes += damage.notes
    for what, count in trace.odd.items():
        notes.append(f"{count:,} events {what if what.startswith('without') else f'with a {what}'}: not used")
        grades |= dict.fromkeys(FIGURES, "lower bound")
    if unused := {name: count for name, count in trace.others.items() if name[:1] not in "sftMi"}:
        listed = ", ".join(f"{name} ({count:,})" for name, count in unused.items())
        notes.append(f"kinds of events that are not read: {listed}")
    for code in np.unique(trace.spans.cat).tolist():
        if (name := trace.names[code]) not in OTHERS:
            own = trace.spans.cat == code
            notes.append(
                f"{int(np.sum(own)):,} events ({ns(int(np.sum(trace.spans.dur[own])))}) of"
                f" {f'category {name!r}' if name else 'no category'}, which is not known: not used"
            )


def judge_capture(trace: Trace, notes: list[str]) -> None:
    """Adds what the tool that wrote the file measures, and at what cost."""
    if trace.source in BY_NODE:
        notes.append(BY_NODE[trace.source])
    if captured.damaged(trace):
        notes.append(
            "its section `hotlap` is not what hotlap writes: case, hardware and the profiler's cost are"
            " unknown"
        )
    if (origin := captured.of(trace)) and (overhead := origin.overhead):
        plain, profiled = scaled(overhead.plain_s, "s"), scaled(overhead.profiled_s, "s")
        costs = "the profiler's own cost is not visible"
        if overhead.factor > VISIBLE:
            costs = f"a call takes {overhead.factor:.2f} times as long under the profiler"
        calls = " and ".join(str(count) for count in overhead.calls)
        notes.append(f"{costs} ({plain} -> {profiled}, medians of {calls} calls)")


def judge_layers(facts: Facts, notes: list[str], grades: dict[str, Grade]) -> None:
    """Adds what a profile by layers cannot tell."""
    grades |= dict.fromkeys(("window", "idle", "launches", "memory"), "unknown")
    if facts.steps:
        engine, layers = facts.steps[0].dur, int(np.sum(facts.line.gpu.dur))
        notes.append(
            f"layers are timed one by one, each once: together {layers / engine:.2f} times the engine's"
            f" {engine / 1e6:.3f} ms"
        )


def judge_gpu(facts: Facts, notes: list[str], grades: dict[str, Grade]) -> None:
    """Adds what in the GPU's events is missing or cannot be."""
    gpu, launched = facts.line.gpu, facts.launched
    if facts.trace.source == "onnxruntime":
        notes.append(
            "ONNX Runtime does not record what launched a kernel, and so not what a device waited for"
        )
        grades["launches"] = "unknown"
        return
    if orphans := int(np.sum(~launched.known)):
        share = float(np.sum(gpu.dur[~launched.known])) / max(1, int(np.sum(gpu.dur)))
        notes.append(
            f"{orphans:,} of {len(gpu):,} GPU events ({share:.0%} of their time) have no host call:"
            " launched before the profiler began, or by a graph"
        )
        grades |= dict.fromkeys(("launches", "operators"), "lower bound")
    ahead = launched.call_start[launched.known] - gpu.start[launched.known]
    early = int(np.sum(ahead > 0))
    if early and ahead.max() <= JITTER_NS and early <= FEW * len(gpu):
        notes.append(
            f"{early:,} of {len(gpu):,} GPU events begin up to {ns(int(ahead.max()))} before their own"
            " launch: jitter of the clocks"
        )
    elif early:
        notes.append(
            f"{early:,} GPU events begin before their own launch: the clocks of host and GPU are apart"
        )
        grades["launches"] = "unknown"
    if overlaps := overlapping(facts):
        dependent = " (programmatic dependent launch)" if dependent_launch(facts.trace) else ""
        notes.append(
            f"{overlaps:,} kernels overlap the one before on their own stream{dependent}: sums of durations"
            " exceed busy time"
        )
    if facts.graph_share:
        notes.append(
            f"{facts.graph_share:.0%} of GPU events were launched by CUDA graphs: their operators are not"
            " known one by one"
        )
        grades["operators"] = "lower bound"
    if not len(launched.calls):
        notes.append(
            "no host calls are recorded: nothing is known of launches and of what the GPU waited for"
        )
        grades |= dict.fromkeys(("launches", "operators"), "unknown")


def judge_audit(facts: Facts, notes: list[str], grades: dict[str, Grade]) -> None:
    """Adds what was left out because it cannot be, and which launches have no kernel."""
    audit = facts.audit
    notes += [
        f"{each.events:,} GPU events ({ns(each.length)}) {each.why}: left out of all figures"
        for each in audit.excluded
    ]
    if audit.excluded:
        line = facts.line
        notes.append(
            f"with them: window {ns(audit.window)} instead of {ns(line.window)}, busy {ns(audit.busy)}"
            f" instead of {ns(line.busy.length)}"
        )
    if any(each.hides for each in audit.excluded):
        grades |= dict.fromkeys(("window", "busy", "idle", "launches", "operators"), "lower bound")
    if audit.unanswered and len(facts.trace.gpu):
        notes.append(
            f"{audit.unanswered:,} of {audit.launched:,} launches have no kernel in the file, so work is"
            f" missing where the device seems idle; {RECORD}"
        )
        grades |= dict.fromkeys(("window", "busy", "idle", "launches", "operators"), "lower bound")


def dependent_launch(trace: Trace) -> bool:
    """Whether a kernel may begin before the end of the one before it (compute capability 9.0)."""
    major = trace.device.get("computeMajor")
    return isinstance(major, int) and major >= 9 and "AMD" not in trace.gpu_name


def judge_records(facts: Facts, notes: list[str], grades: dict[str, Grade]) -> None:
    """Adds what is not recorded of the profiler, of steps, memory and other devices."""
    trace = facts.trace
    if overhead := profiler_overhead(facts):
        notes.append(
            f"the profiler itself took {overhead / 1e6:.2f} ms of the host's time, which stands in idle time"
            " and steps"
        )
    if not facts.steps:
        unmarked = "no steps are marked (profiler.step()): figures are of the whole window"
        notes.append("the engine's own time is not known" if trace.source == "tensorrt" else unmarked)
        grades["steps"] = "unknown"
    elif len(trace.gpu) and trace.source != "tensorrt":
        judge_steps(facts, notes, grades)
    if len(trace.gpu) and not len(trace.operators):
        notes.append(
            "no operators are recorded (ProfilerActivity.CPU does): what launched a kernel is unknown"
        )
        grades["operators"] = "unknown"
    if not len(trace.memory):
        grades["memory"] = "unknown"
    elif not np.any(trace.memory.total != NONE):
        notes.append("allocations are recorded without their totals (torch before 1.13): no peak of memory")
        grades["memory"] = "unknown"
    if len(np.unique(trace.gpu.device)) > 1:
        busy = timeline.busy_by_device(trace)
        first, *others = timeline.devices(trace)
        notes.append(
            f"{len(busy)} devices: figures are of device {first}, busy for {ns(busy[first])}; "
            + ", ".join(f"device {number} {ns(busy[number])}" for number in others)
        )


def judge_steps(facts: Facts, notes: list[str], grades: dict[str, Grade]) -> None:
    """Adds which steps have no work of the device, and which of its work is in no step."""
    steps, busy = facts.steps, facts.line.busy.length
    empty = sum(not step.busy for step in steps)
    inside = intervals.union(
        np.array([step.start for step in steps]), np.array([step.start + step.dur for step in steps])
    )
    outside = intervals.without(facts.line.busy, inside)
    if outside == busy:
        notes.append(
            "all work of the device lies outside of every step: it is asynchronous, or its clock is another;"
            " what a step costs is not known"
        )
        grades["steps"] = "unknown"
        return
    if empty:
        notes.append(f"{empty:,} of {len(steps):,} steps have no work of the device")
    if outside > OUTSIDE * busy:
        notes.append(f"{outside / busy:.0%} of the device's work ({ns(outside)}) lies outside of every step")


def ns(length: int) -> str:
    return scaled(length * 1e-9, "s")


def overlapping(facts: Facts) -> int:
    """Returns how many GPU events begin before the one before them on the same stream has ended."""
    gpu = facts.line.gpu
    order = np.lexsort((gpu.start, gpu.stream))
    stream, start, end = gpu.stream[order], gpu.start[order], gpu.end[order]
    return int(np.sum((stream[1:] == stream[:-1]) & (start[1:] < end[:-1])))


def profiler_overhead(facts: Facts) -> int:
    """Returns ns of the events that the profiler writes of itself (category overhead)."""
    trace = facts.trace
    if "overhead" not in trace.names:
        return 0
    rows = trace.spans.cat == trace.names.index("overhead")
    return int(np.sum(trace.spans.dur[rows]))
