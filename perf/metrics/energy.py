"""Joules a call: RAPL's package counter or NVML's, over whole blocks (a single turn is too short for the counters' update rate).

RAPL counts the whole package, so the figure includes what idles beside the entrant; all other entrants are stopped meanwhile.
"""

from __future__ import annotations

import msgspec

from ..observations import Observations
from ..reasons import Reason, Refusal
from ..result import Samples


def measure(seen: Observations) -> Samples:
    if seen.no_meter is not None:
        reason = msgspec.convert(seen.no_meter, Reason)
        raise Refusal(reason.code, reason.detail)
    values = tuple((sum(block.joules) / sum(turn.calls + 1 for turn in block.turns),) for block in seen.timed if block.joules)
    if not values:
        raise Refusal("interrupted", "no block with energy readings was finished")
    return Samples(unit="J", better="lower", values=values)
