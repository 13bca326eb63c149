"""Kernels that only change the order of a tensor's axes for the next one."""

import re

import numpy as np

from ..facts import Facts
from ..figures import summed
from ..fix import Fix

CONVERSION = re.compile(r"nchwToNhwc|nhwcToNchw|nchw2nhwc|transpose_readWrite", re.IGNORECASE)


def look(facts: Facts) -> Fix | None:
    line, names = facts.line, facts.trace.names
    which = facts.trace.named(CONVERSION)
    own = line.gpu.rows(which[line.gpu.name])
    if not len(own):
        return None
    lost = int(np.sum(own.dur))
    return Fix(
        "layout_conversions", "Keep one memory layout", lost, (f"{len(own):,} conversions between NCHW and NHWC take {lost / 1e6:.2f} ms",),
        "model and inputs to memory_format=torch.channels_last: cuDNN's tensor-core convolutions want NHWC",
        tuple(names[code][:100] for code, _, _ in summed(own.name, own.dur)[:3]),
    )  # fmt: skip
