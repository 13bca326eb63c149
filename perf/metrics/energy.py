"""Joules a call:

RAPL's package counter over the turns of a block; a GPU's over calls of their own, as many as 100
updates of its counter take.

RAPL counts the whole package, a GPU's counter the whole board, so the figure includes what idles
beside the entrant; all other entrants are stopped meanwhile. A GPU's counter is updated more seldom
than turns change, so between the two ends of a turn it would count other entrants' work.
"""

from __future__ import annotations

import msgspec

from ..race.observations import Observations
from ..terms.reasons import Reason, Refusal
from ..terms.result import Samples


def measure(seen: Observations) -> Samples:
    if seen.no_meter is not None:
        reason = msgspec.convert(seen.no_meter, Reason)
        raise Refusal(reason.code, reason.detail)
    if seen.case.target.startswith("cuda:"):
        return on_gpu(seen)
    values = tuple(
        (sum(block.joules) / sum(turn.calls + 1 for turn in block.turns),)
        for block in seen.timed
        if block.joules
    )
    if not values:
        raise Refusal("interrupted", "no block with energy readings was finished")
    return Samples(unit="J", better="lower", values=values)


def on_gpu(seen: Observations) -> Samples:
    windows = [block.energy for block in seen.timed if block.energy is not None]
    if not windows:
        reason = seen.no_energy or Reason("interrupted", "the race ended before its pass for energy")
        raise Refusal(reason.code, reason.detail)
    return Samples(
        unit="J",
        better="lower",
        values=tuple((window.energy_j / window.calls,) for window in windows),
        details={
            "least_updates": min(window.updates for window in windows),
            "shortest_window_s": min(window.length_s for window in windows),
        },
    )
