"""What moved far and is not judged: figures that a file holds beside its times, which have no
direction, no noise and no tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..readers.side import Known
from ..terms.units import scaled, significant
from .metrics import tolerances
from .policy import Policy

# What only says again how long a call takes.
DERIVED = ("throughput", "flop_rate")
# A figure that moved by this factor is mentioned.
FAR = 1.5
# Figures that are mentioned by name; of more, how many there are.
MOST = 5


def mentions(pairs: Sequence[tuple[Known, Known]], policy: Policy) -> list[str]:
    """Returns a line for each figure that moved by half or more, the farthest first."""
    moved = []
    for base, head in pairs:
        judged = tolerances(policy.of(base.case), base, head)
        for name, (before, after, unit) in figures(base, head).items():
            if name in judged or name in DERIVED or before == after or min(before, after) < 0:
                continue
            factor = after / before if before else math.inf
            if 1 / FAR < factor < FAR:
                continue
            counted = 0 < factor < math.inf
            text = f"{base.case}: {name} {_amount(before, unit)} -> {_amount(after, unit)}"
            text += f" ({significant(factor)}x)" if counted else ""
            size = abs(math.log(factor)) if counted else math.inf
            moved.append((size, f"{text}: mentioned, not judged"))
    moved.sort(reverse=True)
    more = [f"{len(moved) - MOST} further figures moved by half or more"] if len(moved) > MOST else []
    return [text for _, text in moved[:MOST]] + more


def figures(base: Known, head: Known) -> dict[str, tuple[float, float, str]]:
    """Returns what both sides have beside the counters: name -> BASE's, HEAD's, unit."""
    both = {name: (base.extras[name], head.extras[name], "") for name in base.extras if name in head.extras}
    for name, sample in base.metrics.items():
        if name in head.metrics and head.metrics[name].unit == sample.unit:
            both[name] = (sample.centre, head.metrics[name].centre, sample.unit)
    return both


def _amount(value: float, unit: str) -> str:
    return scaled(value, unit) if unit else significant(value)
