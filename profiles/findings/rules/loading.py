"""On a CPU: the step stands still while the data loader works in the same process."""

from ...facts.facts import Facts
from ..fix import Fix

ON_CPU = True


def look(facts: Facts) -> Fix | None:
    lost = facts.on_cpu["input"]
    loaders = [row for row in facts.own if "DataLoader" in row.name]
    if not lost or not loaders:
        return None
    return Fix(
        "loading",
        "Load data in other processes",
        lost,
        (f"{sum(row.events for row in loaders):,} loads take {lost / 1e6:.2f} ms of the steps",),
        "DataLoader(num_workers=...) if a core is free for it, cheaper transforms, or the whole set in"
        " memory",
        tuple(row.name for row in loaders[:3]),
    )
