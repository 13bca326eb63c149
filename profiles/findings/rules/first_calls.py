"""Memory from the driver and kernels loaded for the first time, within what is profiled."""

from ...facts.facts import Facts
from ..fix import Fix


def look(facts: Facts) -> Fix | None:
    lost, gaps = facts.lost("setup")
    if not lost:
        return None
    calls = [culprit for culprit in facts.culprits.ranked if culprit.blame == "setup"]
    return Fix(
        "first_calls",
        "Warm up before profiling",
        lost,
        (
            (
                f"in {gaps:,} idle gaps of {lost / 1e6:.2f} ms together the host mostly allocated from the"
                " driver or loaded kernels"
            ),
        ),
        "profiler.schedule(wait, warmup, active), a few steps first; if it happens in every step:"
        " PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True, fewer changes of shape",
        tuple(culprit.label for culprit in calls[:3]),
    )
