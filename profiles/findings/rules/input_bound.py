"""The GPU waits for the data loader."""

from ...facts.facts import Facts
from ..fix import Fix


def look(facts: Facts) -> Fix | None:
    lost, gaps = facts.lost("input")
    if not lost:
        return None
    loaders = [
        culprit
        for culprit in facts.culprits.ranked
        if culprit.blame == "input" and "DataLoader" in culprit.label
    ]
    single = any("SingleProcess" in culprit.label for culprit in loaders)
    advice = (
        "num_workers above 0 (the loader works in the training process)"
        if single
        else "more workers, prefetch_factor, persistent_workers, or cheaper transforms"
    )
    return Fix(
        "input_bound",
        "Load data beside the GPU, not before it",
        lost,
        (f"{gaps:,} idle gaps of {lost / 1e6:.2f} ms together are at least half the data loader's",),
        f"{advice}; pin_memory=True",
        tuple(culprit.label for culprit in loaders[:3]),
    )
