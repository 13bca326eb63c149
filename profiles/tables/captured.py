"""What a file says of its own origin, where `hotlap profile` or hotlap.Profile wrote it: the
section `hotlap` (perf/race/profiling.py). Other files have none.
"""

from __future__ import annotations

import msgspec

from ...perf.terms.contract import Overhead
from .trace import Trace

# Seconds, FLOP/s, B/s: nothing measured comes near.
MOST = 1e18


class Captured(msgspec.Struct, frozen=True):
    """hardware: in words.

    peaks: of that machine, FLOP/s and B/s (flop_rate, byte_rate). flops: of one call. overhead: of
    the profiler.
    """

    case: str = ""
    backend: str = ""
    hardware: str = ""
    weights: str = ""
    flops: int = 0
    peaks: dict[str, float] = {}
    overhead: Overhead | None = None


def of(trace: Trace) -> Captured | None:
    """None where the file has no such section, or one that nobody here wrote."""
    try:
        found = msgspec.convert(trace.header["hotlap"], Captured)
    except (KeyError, msgspec.ValidationError, RecursionError):
        return None
    numbers = [
        *found.peaks.values(),
        *([found.overhead.plain_s, found.overhead.profiled_s] if found.overhead else []),
    ]
    return found if all(0 < number < MOST for number in numbers) and found.flops >= 0 else None


def damaged(trace: Trace) -> bool:
    """Whether there is such a section and it cannot be what hotlap wrote."""
    return "hotlap" in trace.header and of(trace) is None
