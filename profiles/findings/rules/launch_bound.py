"""The host issues work more slowly than the GPU does it."""

import numpy as np

from ...facts.facts import Facts
from ..fix import Fix

# Share of GPU events that CUDA graphs launch: above it there is nothing left to do.
MOST_GRAPHED = 0.9


def look(facts: Facts) -> Fix | None:
    lost = facts.lost("launch")[0] + facts.lost("kernel_wait")[0]
    single = facts.launched.single
    if not lost or not single.any() or facts.graph_share > MOST_GRAPHED:
        return None
    dur = facts.line.gpu.dur[single]
    calls = facts.launched.calls.dur[facts.launched.call[single]]
    shorter = float(np.mean(dur < calls))
    return Fix(
        "launch_bound",
        "Launch less: CUDA graphs or torch.compile",
        lost,
        (
            (
                f"{int(np.sum(single)):,} launches; a call of the host takes {np.median(calls) / 1e3:.1f} us,"
                f" a kernel {np.median(dur) / 1e3:.1f} us (medians)"
            ),
            f"{shorter:.0%} of kernels are shorter than their own launch",
        ),
        'torch.compile(mode="reduce-overhead") replays a CUDA graph; torch.compile alone launches fewer,'
        " larger kernels; so does a larger batch",
        tuple(
            culprit.label
            for culprit in facts.culprits.ranked
            if culprit.blame == "launch" and not culprit.label.startswith("launch latency")
        )[:3],
    )
