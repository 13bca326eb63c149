"""Items (images, tokens, rows) a second of back-to-back calls."""

from __future__ import annotations

from ..race.observations import Observations
from ..terms.result import Samples


def measure(seen: Observations) -> Samples:
    items = seen.case.batch * seen.subject.work.items
    return Samples(
        unit="1/s",
        better="higher",
        values=tuple(tuple(items / turn.call_s for turn in block.turns) for block in seen.timed),
        turns=tuple(tuple(block.numbers) for block in seen.timed),
        details={"item": seen.subject.work.item, "items_per_call": items},
    )
