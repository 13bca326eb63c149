"""Seconds a call: one sample a turn, the mean over its inner calls.

On a GPU the details say what state it was in meanwhile (telemetry.summary).
"""

from __future__ import annotations

from ..machine.telemetry import summary
from ..race.observations import Observations
from ..terms.result import Samples


def measure(seen: Observations) -> Samples:
    blocks = seen.timed
    return Samples(
        unit="s",
        better="lower",
        values=tuple(tuple(turn.call_s for turn in block.turns) for block in blocks),
        turns=tuple(tuple(block.numbers) for block in blocks),
        details=summary([block.device for block in blocks if block.device is not None]),
    )
