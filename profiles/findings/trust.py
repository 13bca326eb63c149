"""Whether the file can be trusted, before any of its figures: what is missing, what cannot be, what
makes a figure a bound instead of a value.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from ...perf.terms.units import scaled
from ..facts.facts import Facts
from ..tables import captured
from ..tables.trace import NONE

Grade = Literal["exact", "lower bound", "unknown"]
VISIBLE = 1.05
YEAR_NS = 365 * 24 * 3600 * 10**9
BY_NODE = {
    "onnxruntime": (
        "a profile of ONNX Runtime: nodes by the host's clock; of a GPU only what the host waited for"
    ),
    "openvino": (
        "a profile of OpenVINO: means of each layer over the recorded calls, to one or two us, laid one after"
        " the other; when a layer ran is not recorded"
    ),
}
FIGURES = ("window", "busy", "idle", "launches", "operators", "steps", "memory")


class Trust(NamedTuple):
    """said: what a reader must know, the most important first.

    grades: of each group of figures. whole: nothing of the file is lost.
    """

    said: tuple[str, ...]
    grades: dict[str, Grade]
    whole: bool


def judge(facts: Facts) -> Trust:
    trace, line = facts.trace, facts.line
    said: list[str] = []
    grades: dict[str, Grade] = dict.fromkeys(FIGURES, "exact")
    damage = trace.damage
    if damage.cut:
        said.append(
            f"the file is cut: {trace.events:,} whole events before the cut, nothing of what came after"
        )
        grades |= dict.fromkeys(FIGURES, "lower bound")
    for why, count in damage.lost.most_common():
        said.append(f"{count:,} events cannot be read ({why})")
        grades |= dict.fromkeys(FIGURES, "lower bound")
    said += damage.notes
    for what, count in trace.odd.items():
        said.append(f"{count:,} events {what if what.startswith('without') else f'with a {what}'}: not used")
        grades |= dict.fromkeys(FIGURES, "lower bound")
    if unused := {name: count for name, count in trace.others.items() if name[:1] not in "sftMi"}:
        said.append(
            "kinds of events that are not read: "
            + ", ".join(f"{name} ({count:,})" for name, count in unused.items())
        )
    gpu = line.gpu
    if trace.source in BY_NODE:
        said.append(BY_NODE[trace.source])
    if captured.damaged(trace):
        said.append(
            "its section `hotlap` is not what hotlap writes: case, hardware and the profiler's cost are"
            " unknown"
        )
    if (origin := captured.of(trace)) and origin.overhead:
        plain, profiled = (
            scaled(seconds, "s") for seconds in (origin.overhead.plain_s, origin.overhead.profiled_s)
        )
        costs = (
            f"a call takes {origin.overhead.factor:.2f} times as long under the profiler"
            if origin.overhead.factor > VISIBLE
            else "the profiler's own cost is not visible"
        )
        said.append(
            f"{costs} ({plain} -> {profiled}, medians of"
            f" {' and '.join(str(count) for count in origin.overhead.calls)} calls)"
        )
    if not len(gpu):
        said.append("no GPU events")
        grades |= dict.fromkeys(("window", "busy", "idle", "launches"), "unknown")
    elif trace.source == "tensorrt":
        grades |= dict.fromkeys(("window", "idle", "launches", "memory"), "unknown")
        if facts.steps:
            engine, layers = facts.steps[0].dur, int(np.sum(gpu.dur))
            said.append(
                f"layers are timed one by one, each once: together {layers / engine:.2f} times the engine's"
                f" {engine / 1e6:.3f} ms"
            )
    else:
        if long := int(np.sum(gpu.dur > YEAR_NS)):
            said.append(
                f"{long:,} GPU events last more than a year: a clock overflowed, and window and busy time"
                " mean nothing"
            )
            grades |= dict.fromkeys(("window", "busy", "idle"), "unknown")
        launched = facts.launched
        if orphans := int(np.sum(~launched.known)):
            share = float(np.sum(gpu.dur[~launched.known])) / max(1, int(np.sum(gpu.dur)))
            said.append(
                f"{orphans:,} of {len(gpu):,} GPU events ({share:.0%} of their time) have no host call:"
                " launched before the profiler began, or by a graph"
            )
            grades |= dict.fromkeys(("launches", "operators"), "lower bound")
        if early := int(np.sum(gpu.start[launched.known] < launched.call_start[launched.known])):
            said.append(
                f"{early:,} GPU events begin before their own launch: the clocks of host and GPU are apart"
            )
            grades["launches"] = "unknown"
        if overlaps := overlapping(facts):
            said.append(
                f"{overlaps:,} kernels overlap the one before on their own stream (programmatic dependent"
                " launch): sums of durations exceed busy time"
            )
        if facts.graph_share:
            said.append(
                f"{facts.graph_share:.0%} of GPU events were launched by CUDA graphs: their operators are not"
                " known one by one"
            )
            grades["operators"] = "lower bound"
        if not len(launched.calls):
            said.append(
                "no host calls are recorded: nothing is known of launches and of what the GPU waited for"
            )
            grades |= dict.fromkeys(("launches", "operators"), "unknown")
    if overhead := profiler_overhead(facts):
        said.append(
            f"the profiler itself took {overhead / 1e6:.2f} ms of the host's time, which stands in idle time"
            " and steps"
        )
    if not facts.steps:
        said.append(
            "no steps are marked (profiler.step()): figures are of the whole window"
            if trace.source != "tensorrt"
            else "the engine's own time is not known"
        )
        grades["steps"] = "unknown"
    if not len(trace.memory):
        grades["memory"] = "unknown"
    elif not np.any(trace.memory.total != NONE):
        said.append("allocations are recorded without their totals (torch before 1.13): no peak of memory")
        grades["memory"] = "unknown"
    if len(devices := np.unique(trace.gpu.device)) > 1:
        said.append(
            f"{len(devices)} devices: figures are of device {int(gpu.device[0])}, which has the most events"
        )
    return Trust(tuple(said), grades, damage.whole)


def overlapping(facts: Facts) -> int:
    """GPU events that begin before the one before them on the same stream has ended."""
    gpu = facts.line.gpu
    order = np.lexsort((gpu.start, gpu.stream))
    stream, start, end = gpu.stream[order], gpu.start[order], gpu.end[order]
    return int(np.sum((stream[1:] == stream[:-1]) & (start[1:] < end[:-1])))


def profiler_overhead(facts: Facts) -> int:
    """ns of the events that the profiler writes of itself (category overhead)."""
    trace = facts.trace
    if "overhead" not in trace.names:
        return 0
    rows = trace.spans.cat == trace.names.index("overhead")
    return int(np.sum(trace.spans.dur[rows]))
