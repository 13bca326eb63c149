"""The host computes on tensors of its own while the GPU waits."""

from ...facts.facts import Facts
from ..fix import Fix


def look(facts: Facts) -> Fix | None:
    lost, gaps = facts.lost("host work")
    if not lost:
        return None
    labels = [
        culprit.label
        for culprit in facts.culprits.ranked
        if culprit.blame == "host work" and culprit.label.endswith(" on the host")
    ]
    return Fix(
        "host_work",
        "Compute on the device what the host computes",
        lost,
        (
            (
                f"in {gaps:,} idle gaps of {lost / 1e6:.2f} ms together the host mostly computed: operators"
                " that launch nothing"
            ),
        ),
        "make random numbers, masks and indices on the device (device=, generator=), or once, before the"
        " loop; or in the data loader's workers",
        tuple(labels[:3]),
    )
