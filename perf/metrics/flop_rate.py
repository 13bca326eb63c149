"""FLOP/s reached: the workload's own arithmetic (torch.utils.flop_counter on eager) over the
latency, beside this machine's measured peak.

The numerator is the same for every backend, so it is a speed in hardware terms, not a count of what
a backend really executed.
"""

from __future__ import annotations

from ..race.observations import Observations
from ..stats.estimates import median
from ..terms.reasons import Refusal
from ..terms.result import Samples


def measure(seen: Observations) -> Samples:
    flops = seen.subject.work.flops
    if flops == 0:
        raise Refusal(
            "unsupported_op",
            "torch's flop counter found no matrix product, convolution or attention in this workload",
        )
    values = tuple(tuple(flops / turn.call_s for turn in block.turns) for block in seen.timed)
    details: dict[str, float | int | str | None] = {
        "flops": flops,
        "operators_eager": seen.subject.work.operators,
    }
    peak = seen.peaks.get("flop_rate")
    if peak:
        details |= {"peak": peak, "share_of_peak": median([median(block) for block in values]) / peak}
    return Samples(unit="FLOP/s", better="higher", values=values, details=details)
