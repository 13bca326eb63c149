"""Seconds a call: one sample a turn, the mean over its inner calls."""

from __future__ import annotations

from ..observations import Observations
from ..result import Samples


def measure(seen: Observations) -> Samples:
    blocks = seen.timed
    return Samples(
        unit="s",
        better="lower",
        values=tuple(tuple(turn.call_s for turn in block.turns) for block in blocks),
        turns=tuple(tuple(block.numbers) for block in blocks),
    )
