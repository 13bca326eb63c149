"""Seconds of single calls, each timed alone: the only samples that percentiles may come from (an
average over calls has no p99 of calls).

A percentile is given only with the effective number of samples that 95 % confidence asks for
(stats.TAIL_N).
"""

from __future__ import annotations

from ..race.observations import Observations
from ..stats import estimates
from ..terms.reasons import Refusal
from ..terms.result import Samples


def measure(seen: Observations) -> Samples:
    values = tuple(tuple(block.tail) for block in seen.timed if block.tail)
    if not values:
        raise Refusal("interrupted", "the race ended before its pass of single calls")
    percentiles, n = estimates.percentiles([value for block in values for value in block])
    return Samples(unit="s", better="lower", values=values, details={**percentiles, "effective_n": n})
