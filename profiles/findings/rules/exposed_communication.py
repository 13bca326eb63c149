"""Collectives that no computation hides."""

from ...facts.facts import Facts
from ...facts.figures import summed
from ..fix import Fix


def look(facts: Facts) -> Fix | None:
    line = facts.line
    lost = line.exposed_all_comm
    if not lost:
        return None
    own = line.gpu.rows(line.collective)
    names = [facts.trace.names[code] for code, _, _ in summed(own.name, own.dur)[:3]]
    return Fix(
        "exposed_communication",
        "Hide communication behind computation",
        lost,
        (
            (
                f"{len(own)} collectives take {line.all_comm.length / 1e6:.2f} ms, of which {lost / 1e6:.2f}"
                " ms with nothing computed beside"
            ),
        ),
        "larger or earlier buckets (DDP bucket_cap_mb, gradient_as_bucket_view), backward prefetch (FSDP),"
        " bf16 gradients; a rank that is late makes all others wait",
        tuple(names),
    )
