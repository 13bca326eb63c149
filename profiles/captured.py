"""What a file says of its own origin, where `hotlap profile` or hotlap.Profile wrote it: the section `hotlap` (perf/profiling.py). Other files have none."""

from __future__ import annotations

import msgspec

from ..perf.profiling import Overhead
from .trace import Trace


class Captured(msgspec.Struct, frozen=True):
    """hardware: in words. peaks: of that machine, FLOP/s and B/s (flop_rate, byte_rate). flops: of one call. overhead: of the profiler."""

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
        return msgspec.convert(trace.header["hotlap"], Captured)
    except (KeyError, msgspec.ValidationError):
        return None
