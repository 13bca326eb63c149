"""All that follows from a trace, each computed once when it is first asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..tables.trace import Column, Trace
from . import audit, culprits, launches, operators, processor, roofline, steps, timeline
from .audit import TraceAudit
from .culprits import Culprits, Gap
from .launches import Idle, Launches
from .processor import Own
from .roofline import Attained
from .steps import TraceStep
from .timeline import Timeline


@dataclass(frozen=True)
class Facts:
    """The facts of one device of one trace."""

    # As the file has it.
    as_read: Trace

    @cached_property
    def audit(self) -> TraceAudit:
        return audit.of(self.as_read)

    @property
    def trace(self) -> Trace:
        """The trace without events that cannot be."""
        return self.audit.trace

    @cached_property
    def line(self) -> Timeline:
        return timeline.of(self.trace)

    @cached_property
    def launched(self) -> Launches:
        return launches.of(self.trace, self.line.gpu)

    @cached_property
    def wall(self) -> tuple[int, int]:
        """Start and end of what is accounted for, ns: all steps, and the GPU's window.

        A data loader that works before the first kernel is in a step, and in no window.
        """
        if self.trace.source == "tensorrt":  # layers laid one after the other, at no time
            return self.line.start, self.line.end
        starts = [self.line.start, *(step.start for step in self.steps)]
        ends = [self.line.end, *(step.start + step.dur for step in self.steps)]
        return min(starts), max(ends)

    @cached_property
    def idle(self) -> Idle:
        return launches.idle(self.line, self.launched, *self.wall)

    @cached_property
    def culprits(self) -> Culprits:
        return culprits.of(self.trace, self.line, self.launched, self.idle)

    def largest_gaps(self, count: int) -> list[Gap]:
        """Returns the longest gaps, the longest first."""
        rows = np.lexsort((self.idle.start, -self.idle.length))[:count].tolist()
        return [
            culprits.gap(self.trace, self.line, self.launched, self.idle, self.culprits, row, self.wall)
            for row in rows
        ]

    @cached_property
    def behind(self) -> Column:
        """The row of the operator behind each GPU event; NONE without one."""
        if self.trace.source in ("tensorrt", "onnxruntime"):
            return self.line.gpu.external  # a layer is its own kernel; a kernel names its operator
        return operators.behind(self.trace.operators, self.launched)

    @cached_property
    def own(self) -> list[Own]:
        """Operators of a trace without a GPU, by their own time on the CPU."""
        return [] if len(self.trace.gpu) else processor.own(self.trace)

    @cached_property
    def on_cpu(self) -> dict[str, int]:
        return processor.parts(self.own, self.span)

    @property
    def span(self) -> int:
        """The ns that everything is a share of.

        It is the steps and the GPU's window; on a CPU all steps, or where there are none all that
        is recorded.
        """
        if len(self.trace.gpu):
            return self.wall[1] - self.wall[0]
        return sum(step.dur for step in self.steps) or sum(row.length for row in self.own)

    @cached_property
    def attained(self) -> list[Attained]:
        return roofline.attained(
            self.trace, self.line.gpu, self.behind if len(self.trace.gpu) else np.empty(0, np.int64)
        )

    @cached_property
    def steps(self) -> list[TraceStep]:
        return steps.of(self.trace, self.line)

    def lost(self, blame: str) -> tuple[int, int]:
        """Returns ns and number of the gaps that have this reason."""
        return self.culprits.blamed[blame]

    @property
    def graph_share(self) -> float:
        """The share of GPU events that came under a CUDA graph's launch."""
        known = self.launched.known
        return (
            float(np.sum(self.launched.graph[self.launched.call[known]])) / len(self.line.gpu)
            if len(self.line.gpu)
            else 0.0
        )
