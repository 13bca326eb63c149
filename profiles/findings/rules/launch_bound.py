"""The host issues work more slowly than the GPU does it."""

import re

import numpy as np

from ...facts.facts import Facts
from ..fix import Fix

# Share of GPU events that CUDA graphs launch: above it there is nothing left to do.
MOST_GRAPHED = 0.9


# Kernels and frames of Inductor.
COMPILED = re.compile(r"^triton_(?:poi|red|per|tem|mm)|torch/_inductor|CompiledFxGraph|Torch-Compiled Region")
# Devices whose runtime has CUDA graphs or HIP's.
OTHERS = re.compile(r"xpu|mtia|privateuse1")
GRAPHS = re.compile(r"NVIDIA|Tesla|GeForce|Quadro|RTX|GTX|AMD|Instinct|unknown GPU")


def how(facts: Facts) -> tuple[str, str]:
    """Returns what to do on this device by who launches: no advice to do what is done already."""
    compiled = bool(facts.trace.named(COMPILED).any())
    others = any(OTHERS.match(category) for category in facts.trace.categories)
    graphs = GRAPHS.search(facts.trace.gpu_name) is not None and not others
    advice = []
    if graphs:
        advice.append('torch.compile(mode="reduce-overhead") replays a CUDA graph')
    if not compiled:
        advice.append("torch.compile alone launches fewer, larger kernels")
    advice.append("a larger batch gives each launch more to do")
    ways = [*(["CUDA graphs"] if graphs else []), *([] if compiled else ["torch.compile"])]
    return f"Launch less: {' or '.join(ways) or 'larger batches'}", "; ".join(advice)


def look(facts: Facts) -> Fix | None:
    lost = facts.lost("launch")[0] + facts.lost("kernel_wait")[0]
    single = facts.launched.single
    if not lost or not single.any() or facts.graph_share > MOST_GRAPHED:
        return None
    dur = facts.line.gpu.dur[single]
    calls = facts.launched.calls.dur[facts.launched.call[single]]
    shorter = float(np.mean(dur < calls))
    title, advice = how(facts)
    return Fix(
        "launch_bound",
        title,
        lost,
        (
            (
                f"{int(np.sum(single)):,} launches; a call of the host takes {np.median(calls) / 1e3:.1f} us,"
                f" a kernel {np.median(dur) / 1e3:.1f} us (medians)"
            ),
            f"{shorter:.0%} of kernels are shorter than their own launch",
        ),
        advice,
        tuple(
            culprit.label
            for culprit in facts.culprits.ranked
            if culprit.blame == "launch" and not culprit.label.startswith("launch latency")
        )[:3],
    )
