"""What a performance engineer wants to know of a trace in the first thirty seconds, in that order,
as data: terminal, page and JSON say the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ...perf.terms.verdict import Verdict
from ..facts import figures, roofline
from ..facts.culprits import Culprit, Gap
from ..facts.facts import Facts
from ..facts.roofline import Attained
from ..tables import captured, files
from ..tables.trace import NONE, Kind, Trace
from . import bound, fix, trust
from .bound import Bound
from .fix import Fix
from .trust import Trust

NO_OPERATOR = "(no operator recorded)"
OPERATORS, KERNELS, CULPRITS, GAPS = 12, 12, 12, 12


class Row(NamedTuple):
    """An operator or a kernel: time of the GPU in ns, over the whole window.

    own: of the kernels' time.
    """

    name: str
    events: int
    length: int
    share: float


class Review(NamedTuple):
    """steps: (name, ns, GPU-busy ns).

    bound: of the GPU; host: of a CPU without one. peak_bytes: of device memory, by the profiler's
    own records; None where there are none.
    """

    facts: Facts
    trust: Trust
    bound: Bound | None
    fixes: list[Fix]
    operators: list[Row]
    kernels: list[Row]
    culprits: list[Culprit]
    gaps: list[Gap]
    peak_bytes: int | None
    attained: list[Attained]
    host: Bound | None = None

    @property
    def trace(self) -> Trace:
        return self.facts.trace

    @property
    def verdict(self) -> Verdict:
        """A trace alone is never good or bad: it can be read, or not as a whole."""
        return Verdict("review", "pass" if self.trust.whole else "not_comparable", self.trust.said)


def review(path: Path) -> Review:
    """Raises Unreadable and OSError."""
    return of(files.read(path))


def of(trace: Trace) -> Review:
    facts = Facts(trace)
    found = trust.judge(facts)
    if not len(trace.gpu):
        suggested = fix.suggested(facts)
        return Review(
            facts,
            found,
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
            found,
            None,
            fix.suggested(facts),
            operators(facts)[:OPERATORS],
            kernels(facts)[:KERNELS],
            [],
            [],
            None,
            facts.attained,
        )
    by_operator, near = (
        operators(facts)[:OPERATORS],
        facts.attained,
    )  # before the host's timeline is there, so that a long trace never needs the memory of both
    return Review(
        facts,
        found,
        bound.of(facts),
        fix.suggested(facts),
        by_operator,
        kernels(facts)[:KERNELS],
        facts.culprits.ranked[:CULPRITS],
        facts.largest_gaps(GAPS),
        peak(trace),
        near,
    )


def operators(facts: Facts) -> list[Row]:
    """By the innermost operator behind each GPU event, the longest first."""
    gpu, behind = facts.line.gpu, facts.behind
    total = max(1, int(np.sum(gpu.dur)))
    known = behind != NONE
    found = [
        Row(facts.trace.names[code], count, length, length / total)
        for code, count, length in figures.summed(facts.trace.operators.name[behind[known]], gpu.dur[known])
    ]
    if lost := int(np.sum(~known)):
        length = int(np.sum(gpu.dur[~known]))
        found.append(Row(NO_OPERATOR, lost, length, length / total))
    return sorted(found, key=lambda row: -row.length)


def on_cpu(facts: Facts) -> list[Row]:
    """Operators by their own time on the CPU, over all threads, without what they call."""
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
    """Bytes allocated on a GPU at most (device type 1 is CUDA and ROCm, torch's
    c10/core/DeviceType.h).
    """
    own = trace.memory.total[(trace.memory.device_type == 1) & (trace.memory.total != NONE)]
    return int(own.max()) if len(own) else None


def document(found: Review, verdict: Verdict, more: dict[str, Any]) -> bytes:
    """DESIGN.md's envelope, so that `hotlap gate --with` takes it, and beside it all that was
    found.
    """
    content = msgspec.to_builtins(verdict)
    content["file"] = {
        "path": Path(found.trace.path).name,
        "source": found.trace.source,
        "device": found.trace.gpu_name,
        "events": found.trace.events,
    }
    content["captured"] = captured.of(found.trace)
    content["trust"] = {"said": found.trust.said, "grades": found.trust.grades, "whole": found.trust.whole}
    if found.bound is not None:
        content["bound"] = {
            "word": found.bound.word,
            "share": found.bound.share,
            "parts_ns": found.bound.parts,
        }
    if found.host is not None:
        content["host"] = {"word": found.host.word, "share": found.host.share, "parts_ns": found.host.parts}
    content["fixes"] = [{**one._asdict(), "ceiling_ns": one.ceiling} for one in found.fixes]
    content["idle"] = {
        "culprits": [one._asdict() for one in found.culprits],
        "largest_gaps": [one._asdict() for one in found.gaps],
    }
    content["operators"] = [row._asdict() for row in found.operators]
    content["kernels"] = [row._asdict() for row in found.kernels]
    content["roofline"] = {
        "peak": roofline.device_peak(found.trace),
        "operators": [row._asdict() for row in found.attained],
    }
    content["peak_bytes"] = found.peak_bytes
    content["figures"] = figures.figures(found.trace)
    content |= more
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"
