"""Kernels that only change the order of a tensor's axes for the next one."""

import re

import numpy as np

from ...facts.facts import Facts
from ...facts.figures import summed
from ..fix import Fix

CONVERSION = re.compile(
    r"nchwToNhwc|nhwcToNchw|nchw2nhwc|transpose_readWrite|Reformatting CopyNode", re.IGNORECASE
)


def look(facts: Facts) -> Fix | None:
    line, names = facts.line, facts.trace.names
    which = facts.trace.named(CONVERSION)
    own = line.gpu.rows(which[line.gpu.name])
    if not len(own):
        return None
    lost = int(np.sum(own.dur))
    advice = (
        "model and inputs to memory_format=torch.channels_last: cuDNN's tensor-core convolutions want NHWC"
    )
    if facts.trace.source == "tensorrt":
        advice = (
            "give the engine its inputs and outputs in the formats that its first and last layers take"
            " (trtexec --inputIOFormats, --outputIOFormats)"
        )
    return Fix(
        "layout_conversions",
        "Keep one memory layout",
        lost,
        (f"{len(own):,} conversions between memory layouts take {lost / 1e6:.2f} ms",),
        advice,
        tuple(names[code][:100] for code, _, _ in summed(own.name, own.dur)[:3]),
    )
