"""The steps that a training or inference loop announced (`ProfilerStep#N`), on the CPU."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from ..tables.trace import Trace
from .timeline import Timeline

STEP = re.compile(r"^ProfilerStep#\d+\Z")
# What ONNX Runtime calls one run of a session, and a profile of OpenVINO here as well; of TensorRT
# the engine's own time.
RUN = re.compile(r"^(?:model_run|engine)\Z")


class Step(NamedTuple):
    """ns. busy: of the GPU, within the step."""

    name: str
    start: int
    dur: int
    busy: int


def of(trace: Trace, timeline: Timeline) -> list[Step]:
    """In the order of time; the copy on the GPU's own track is not one.

    Torch 1.9 has them among the operators.
    """
    named = trace.named(RUN if trace.by_node else STEP)
    found = []
    for spans in (trace.notes, trace.operators):
        for row in np.flatnonzero(named[spans.name]).tolist():
            start, dur = int(spans.start[row]), int(spans.dur[row])
            found.append(
                Step(trace.names[spans.name[row]], start, dur, timeline.busy.within(start, start + dur))
            )
    return sorted(found, key=lambda step: step.start)
