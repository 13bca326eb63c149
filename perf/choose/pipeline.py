"""What a faster model brings to the function around it: the user's own `predict(model)`, raced with
the baseline and with what was chosen, and where its time goes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import msgspec

from ..race.entrant import Entrant, load_worker
from ..race.messages import BreakDown, Breakdown
from ..race.race import Race
from ..race.servers import Servers
from ..stats import estimates
from ..terms.case import Plan
from ..terms.reasons import Refusal
from ..terms.units import significant

# Blocks of the race. Six give an interval that holds 5 % noise to 5 %.
BLOCKS = 6
# Those that are raced whatever the budget: three are the fewest with an interval. Workers of a
# runtime without torch import the function's module anew in each block, and on a slow machine that
# alone takes the race's share of the time.
LEAST_BLOCKS = 3


class Pipelined(NamedTuple):
    """The function with the baseline's model and with the chosen one."""

    name: str
    # Its speed-up, and the model's own.
    gain: estimates.Estimate
    model_gain: float
    # With the baseline's model and with the chosen one.
    before: Breakdown
    after: Breakdown


def raced(
    name: str,
    baseline: Entrant,
    chosen: Entrant,
    model_gain: float,
    plan: Plan,
    servers: Servers,
    report: Callable[[str], None],
) -> Pipelined:
    """Returns what the function gains. Raises Refusal where it fails with either model."""
    entrants = [replace(each, pipeline=name, own_work=True, limits=None) for each in (baseline, chosen)]
    plan = msgspec.structs.replace(plan, looks=(BLOCKS,), tail_s=0.0, fresh_blocks=1)
    race = Race(
        entrants, plan, servers, lambda text: report(f"{name}: {text}"), lambda: None, least=LEAST_BLOCKS
    )
    race.run()
    for entrant in entrants:
        if entrant.refusal is not None:
            raise Refusal(entrant.refusal.code, entrant.refusal.detail)
    gain = estimates.inverse(estimates.ratio(entrants[0].latencies(), entrants[1].latencies()))
    before, after = (broken_down(entrant, plan, servers) for entrant in entrants)
    return Pipelined(name, gain, model_gain, before, after)


def broken_down(entrant: Entrant, plan: Plan, servers: Servers) -> Breakdown:
    load_worker(entrant, plan, servers, "breakdown", fresh=False)
    try:
        return entrant.running().ask(BreakDown(entrant.pipeline), plan.timeout_s)
    finally:
        entrant.end_worker()


def sentence(result: Pipelined) -> str:
    """Returns what the function gains, and what it cannot gain by any model."""
    width = "(no interval: too few blocks)"
    if math.isfinite(result.gain.half_width):
        width = f"[{significant(result.gain.low)}, {significant(result.gain.high)}]"
    rest_s = max(1e-12, result.before.total_s - result.before.model_s)
    most = result.before.total_s / rest_s
    share = result.after.other_s / max(result.after.total_s, 1e-12)
    return (
        f"model {significant(result.model_gain)}x, {result.name} {significant(result.gain.centre)}x {width};"
        f" {share:.0%} of it is now {result.after.other}: no model gives more than {significant(most)}x"
    )
