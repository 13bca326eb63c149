"""Seconds from nothing to the first answer: export, compile and build (once, with cold caches),
then start and imports, load, first call.

`steady` (in the details, not in the sum) is what the warm-up took until consecutive samples agreed.
"""

from __future__ import annotations

from ..race.observations import Observations
from ..terms.reasons import Refusal
from ..terms.result import Samples


def measure(seen: Observations) -> Samples:
    blocks = seen.fresh
    if not blocks:
        raise Refusal("interrupted", "no worker that started fresh lived to the end of its block")
    first, built = blocks[0], sum(seen.ledger.values())
    return Samples(
        unit="s",
        better="lower",
        values=tuple((built + block.start_s + block.load_s + block.first_call_s,) for block in blocks),
        details={
            **seen.ledger,
            "import": first.start_s,
            "load": first.load_s,
            "first_call": first.first_call_s,
            "steady": first.warm.spent_s if first.warm else None,
        },
    )
