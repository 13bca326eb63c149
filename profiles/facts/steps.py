"""The steps that a training or inference loop announced (`ProfilerStep#N`), on the CPU."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from ..tables.trace import Trace
from .timeline import Timeline

# Names of steps: what torch.profiler.step() writes.
STEP = re.compile(r"^ProfilerStep#\d+\Z")
# What ONNX Runtime calls one run of a session, and a profile of OpenVINO here as well; of TensorRT
# the engine's own time.
RUN = re.compile(r"^(?:model_run|engine)\Z")


class TraceStep(NamedTuple):
    """One step, in ns."""

    name: str
    start: int
    dur: int
    # Of the step: how long the GPU was busy, and how long collectives were on it.
    busy: int
    collectives: int = 0


def of(trace: Trace, timeline: Timeline) -> list[TraceStep]:
    """Returns the steps in the order of time; the copy on the GPU's own track is not one.

    Torch 1.9 has them among the operators.
    """
    named = trace.named(RUN if trace.by_node else STEP)
    steps = []
    for spans in (trace.notes, trace.operators):
        for row in np.flatnonzero(named[spans.name]).tolist():
            start, dur = int(spans.start[row]), int(spans.dur[row])
            busy, collectives = (
                part.within(start, start + dur) for part in (timeline.busy, timeline.all_comm)
            )
            steps.append(TraceStep(trace.names[spans.name[row]], start, dur, busy, collectives))
    return sorted(steps, key=lambda step: step.start)
