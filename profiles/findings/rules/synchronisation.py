"""The host waits for the GPU in the middle of a step, and the GPU then waits for the host."""

from collections import defaultdict

from ...facts.facts import Facts
from ...facts.launches import SYNCHRONISE
from ...facts.operators import innermost
from ..fix import Fix


def look(facts: Facts) -> Fix | None:
    lost, gaps = facts.lost("sync")
    if not lost:
        return None
    calls, trace = facts.trace.calls, facts.trace
    named = trace.named(SYNCHRONISE)
    rows = calls.rows(named[calls.name])
    counts: dict[str, int] = defaultdict(int)
    for name, operator in zip(
        rows.name.tolist(), innermost(trace.operators, rows.lane, rows.start).tolist(), strict=True
    ):
        counts[
            trace.names[name]
            + (f" in {trace.names[trace.operators.name[operator]]}" if operator >= 0 else "")
        ] += 1
    ranked = sorted(counts.items(), key=lambda entry: -entry[1])
    return Fix(
        "synchronisation",
        "Do not wait for the GPU within a step",
        lost,
        (
            f"{gaps:,} idle gaps begin while the host is in a synchronisation or a copy that it waits for",
            *(f"{count} x {name}" for name, count in ranked[:3]),
        ),
        "keep losses and metrics on the device (no .item(), .cpu(), print of a tensor, boolean masks); copy"
        " with non_blocking=True from pinned memory",
        tuple(name for name, _ in ranked[:3]),
    )
