"""Whether the file can be trusted, before any of its figures: what is missing, what cannot be, what
makes a figure a bound instead of a value.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from ...perf.terms.units import scaled
from ..facts.facts import Facts
from ..tables import captured
from ..tables.trace import NONE, Trace

Grade = Literal["exact", "lower bound", "unknown"]
# How many times as long a call takes under the profiler before its cost is spoken of.
VISIBLE = 1.05
# Kernels that last longer are an overflow of the profiler's clock.
YEAR_NS = 365 * 24 * 3600 * 10**9
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
    # Whether nothing of the file is lost.
    whole: bool


def judge(facts: Facts) -> Trust:
    """Returns how far a trace can be trusted."""
    notes: list[str] = []
    grades: dict[str, Grade] = dict.fromkeys(FIGURES, "exact")
    judge_file(facts.trace, notes, grades)
    judge_capture(facts.trace, notes)
    if not len(facts.line.gpu):
        notes.append("no GPU events")
        grades |= dict.fromkeys(("window", "busy", "idle", "launches"), "unknown")
    elif facts.trace.source == "tensorrt":
        judge_layers(facts, notes, grades)
    else:
        judge_gpu(facts, notes, grades)
    judge_records(facts, notes, grades)
    return Trust(tuple(notes), grades, facts.trace.damage.whole)


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
    notes += damage.notes
    for what, count in trace.odd.items():
        notes.append(f"{count:,} events {what if what.startswith('without') else f'with a {what}'}: not used")
        grades |= dict.fromkeys(FIGURES, "lower bound")
    if unused := {name: count for name, count in trace.others.items() if name[:1] not in "sftMi"}:
        listed = ", ".join(f"{name} ({count:,})" for name, count in unused.items())
        notes.append(f"kinds of events that are not read: {listed}")


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
    if long := int(np.sum(gpu.dur > YEAR_NS)):
        notes.append(
            f"{long:,} GPU events last more than a year: a clock overflowed, and window and busy time"
            " mean nothing"
        )
        grades |= dict.fromkeys(("window", "busy", "idle"), "unknown")
    if orphans := int(np.sum(~launched.known)):
        share = float(np.sum(gpu.dur[~launched.known])) / max(1, int(np.sum(gpu.dur)))
        notes.append(
            f"{orphans:,} of {len(gpu):,} GPU events ({share:.0%} of their time) have no host call:"
            " launched before the profiler began, or by a graph"
        )
        grades |= dict.fromkeys(("launches", "operators"), "lower bound")
    if early := int(np.sum(gpu.start[launched.known] < launched.call_start[launched.known])):
        notes.append(
            f"{early:,} GPU events begin before their own launch: the clocks of host and GPU are apart"
        )
        grades["launches"] = "unknown"
    if overlaps := overlapping(facts):
        notes.append(
            f"{overlaps:,} kernels overlap the one before on their own stream (programmatic dependent"
            " launch): sums of durations exceed busy time"
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
    if not len(trace.memory):
        grades["memory"] = "unknown"
    elif not np.any(trace.memory.total != NONE):
        notes.append("allocations are recorded without their totals (torch before 1.13): no peak of memory")
        grades["memory"] = "unknown"
    if len(devices := np.unique(trace.gpu.device)) > 1:
        first = int(facts.line.gpu.device[0])
        notes.append(f"{len(devices)} devices: figures are of device {first}, which has the most events")


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
