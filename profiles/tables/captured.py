"""What a file says of its own origin: the section `hotlap` (perf/race/profiling.py).

Only files that `hotlap profile` or hotlap.Profile wrote have it.
"""

from __future__ import annotations

import msgspec

from ...perf.terms.contract import Overhead
from .trace import Trace

# No measured s, FLOP/s or B/s comes near: a section with such a number is not hotlap's.
MOST = 1e18


class Captured(msgspec.Struct, frozen=True):
    """The section `hotlap`; what it lacks is empty."""

    # Key of the case that was recorded.
    case: str = ""
    # Name of the backend.
    backend: str = ""
    # The machine in words.
    hardware: str = ""
    # Where the model's weights came from.
    weights: str = ""
    # FLOP of one call.
    flops: int = 0
    # Measured on that machine: flop_rate in FLOP/s, byte_rate in B/s.
    peaks: dict[str, float] = {}
    # What the profiler added to a call.
    overhead: Overhead | None = None


def of(trace: Trace) -> Captured | None:
    """Returns the section; None where the file has none, or one that hotlap cannot have written."""
    try:
        origin = msgspec.convert(trace.header["hotlap"], Captured)
    except (KeyError, msgspec.ValidationError, RecursionError):
        return None
    numbers = list(origin.peaks.values())
    if origin.overhead:
        numbers += [origin.overhead.plain_s, origin.overhead.profiled_s]
    return origin if all(0 < number < MOST for number in numbers) and origin.flops >= 0 else None


def damaged(trace: Trace) -> bool:
    """Returns whether there is a section that hotlap cannot have written."""
    return "hotlap" in trace.header and of(trace) is None
