"""What a performance engineer wants to know of a trace in the first thirty seconds, in that order,
as data: terminal, page and JSON say the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ...perf.terms.verdict import Verdict
from ..facts import figures, intervals, roofline
from ..facts.culprits import Culprit, Gap
from ..facts.facts import Facts
from ..facts.roofline import Attained
from ..tables import captured, files
from ..tables.trace import NONE, Kind, Trace
from . import bound, fix, trust
from .bound import Bound
from .fix import Fix
from .trust import Trust

# What stands for a kernel's operator where the file does not tell.
NO_OPERATOR = "(no operator recorded)"
# Rows of each list.
OPERATORS = 12
KERNELS = 12
CULPRITS = 12
GAPS = 12
STREAMS = 12


class Row(NamedTuple):
    """An operator or a kernel, over the whole window."""

    name: str
    events: int
    # ns of the GPU (on a CPU: its own).
    length: int
    # Of the time of all rows, 0 to 1.
    share: float


class StreamWork(NamedTuple):
    """What one stream of a device did."""

    device: int
    stream: int
    events: int
    # ns in which it had work; several streams may have at the same time.
    busy: int


class Review(NamedTuple):
    """What a trace says; each list has the longest first."""

    # All that follows from the trace.
    facts: Facts
    # Whether it can be trusted.
    trust: Trust
    # What the GPU's window goes into; None without a GPU or a clock.
    bound: Bound | None
    # What to change.
    fixes: list[Fix]
    # By their time on the GPU, or without one on the CPU.
    operators: list[Row]
    # By their time on the GPU.
    kernels: list[Row]
    # What the host did in idle time.
    culprits: list[Culprit]
    # Holes in the GPU's work.
    gaps: list[Gap]
    # Bytes of device memory at most, by the profiler's own records; None where there are none.
    peak_bytes: int | None
    # Operators against the roofline.
    attained: list[Attained]
    # What the steps go into on a CPU without a GPU.
    host: Bound | None = None
    # Of all devices, those with the most work first.
    streams: tuple[StreamWork, ...] = ()

    @property
    def trace(self) -> Trace:
        return self.facts.trace

    @property
    def verdict(self) -> Verdict:
        """A trace alone is never good or bad: it can be read, or not as a whole."""
        return Verdict("review", "pass" if self.trust.whole else "not_comparable", self.trust.notes)


def review(path: Path) -> Review:
    """Reviews a file. Raises Unreadable and OSError."""
    return of(files.read(path))


def of(trace: Trace) -> Review:
    """Returns the review of a GPU's trace, of a CPU's, or of an engine's layers."""
    facts = Facts(trace)
    trace = facts.trace
    judgement = trust.judge(facts)
    if trust.lost_kernels(facts):
        # What there is of the host; a review as of a CPU would be of another program.
        own = on_cpu(facts)[:OPERATORS]
        return Review(facts, judgement, None, [], own, [], [], [], peak(trace), [])
    if not len(trace.gpu):
        suggested = fix.suggested(facts)
        return Review(
            facts,
            judgement,
            None,
            suggested,
            on_cpu(facts)[:OPERATORS],
            [],
            [],
            [],
            peak(trace),
            facts.attained,
            bound.on_cpu(facts),
        )
    if trace.source == "tensorrt":
        return Review(
            facts,
            judgement,
            None,
            fix.suggested(facts),
            operators(facts)[:OPERATORS],
            kernels(facts)[:KERNELS],
            [],
            [],
            None,
            facts.attained,
        )
    # Before the host's timeline is there, so that a long trace never needs the memory of both.
    by_operator, near = operators(facts)[:OPERATORS], facts.attained
    return Review(
        facts,
        judgement,
        bound.of(facts),
        fix.suggested(facts),
        by_operator,
        kernels(facts)[:KERNELS],
        facts.culprits.ranked[:CULPRITS],
        facts.largest_gaps(GAPS),
        peak(trace),
        near,
        streams=streams(trace),
    )


def streams(trace: Trace) -> tuple[StreamWork, ...]:
    """Returns the streams of all devices, those with the most work first."""
    gpu = trace.gpu
    lanes, lane = np.unique(np.stack([gpu.device, gpu.stream]), axis=1, return_inverse=True)
    lane = lane.reshape(-1)
    longest = np.argsort(-np.bincount(lane, weights=gpu.dur), kind="stable")[:STREAMS]
    rows = []
    for number in longest.tolist():
        own, (device, stream) = lane == number, lanes[:, number].tolist()
        busy = intervals.union(gpu.start[own], gpu.end[own]).length
        rows.append(StreamWork(device, stream, int(np.sum(own)), busy))
    return tuple(sorted(rows, key=lambda row: -row.busy))


def operators(facts: Facts) -> list[Row]:
    """Returns the innermost operators behind GPU events, the longest first."""
    gpu, behind = facts.line.gpu, facts.behind
    total = max(1, int(np.sum(gpu.dur)))
    known = behind != NONE
    rows = [
        Row(facts.trace.names[code], count, length, length / total)
        for code, count, length in figures.summed(facts.trace.operators.name[behind[known]], gpu.dur[known])
    ]
    if lost := int(np.sum(~known)):
        length = int(np.sum(gpu.dur[~known]))
        rows.append(Row(NO_OPERATOR, lost, length, length / total))
    return sorted(rows, key=lambda row: -row.length)


def on_cpu(facts: Facts) -> list[Row]:
    """Returns operators by their own time on the CPU, over all threads, without what they call."""
    total = max(1, sum(row.length for row in facts.own))
    return [Row(row.name, row.events, row.length, row.length / total) for row in facts.own]


def kernels(facts: Facts) -> list[Row]:
    gpu = facts.line.gpu.rows(facts.line.gpu.kind == Kind.KERNEL)
    total = max(1, int(np.sum(gpu.dur)))
    return [
        Row(facts.trace.names[code], count, length, length / total)
        for code, count, length in figures.summed(gpu.name, gpu.dur)
    ]


def peak(trace: Trace) -> int | None:
    """Returns the bytes allocated on a GPU at most (device type 1 is CUDA and ROCm, torch's
    c10/core/DeviceType.h); None where nothing is recorded.
    """
    own = trace.memory.total[(trace.memory.device_type == 1) & (trace.memory.total != NONE)]
    return int(own.max()) if len(own) else None


def document(review: Review, verdict: Verdict, more: dict[str, Any]) -> bytes:
    """Returns the verdict as `hotlap gate --with` takes it, with all figures beside it."""
    content = msgspec.to_builtins(verdict)
    content["file"] = {
        "path": Path(review.trace.path).name,
        "source": review.trace.source,
        "device": review.trace.gpu_name,
        "events": review.trace.events,
    }
    content["captured"] = captured.of(review.trace)
    content["trust"] = {
        "said": review.trust.notes,
        "grades": review.trust.grades,
        "whole": review.trust.whole,
    }
    if review.bound is not None:
        content["bound"] = {
            "word": review.bound.word,
            "share": review.bound.share,
            "second": review.bound.second or None,
            "parts_ns": review.bound.parts,
        }
    if review.facts.audit.excluded:
        content["excluded"] = {
            "events": [each._asdict() for each in review.facts.audit.excluded],
            "window_ns_with_them": review.facts.audit.window,
            "busy_ns_with_them": review.facts.audit.busy,
        }
    if review.host is not None:
        content["host"] = {
            "word": review.host.word,
            "share": review.host.share,
            "parts_ns": review.host.parts,
        }
    content["fixes"] = [{**fix._asdict(), "ceiling_ns": fix.ceiling} for fix in review.fixes]
    content["idle"] = {
        "culprits": [culprit._asdict() for culprit in review.culprits],
        "largest_gaps": [gap._asdict() for gap in review.gaps],
    }
    content["operators"] = [row._asdict() for row in review.operators]
    content["kernels"] = [row._asdict() for row in review.kernels]
    content["roofline"] = {
        "peak": roofline.device_peak(review.trace),
        "operators": [row._asdict() for row in review.attained],
    }
    content["streams"] = [stream._asdict() for stream in review.streams]
    content["peak_bytes"] = review.peak_bytes
    content["figures"] = figures.figures(review.trace)
    content |= more
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"
