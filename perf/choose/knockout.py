"""A race in which who is surely slower leaves, so that what remains is measured longer."""

from __future__ import annotations

import math

from ..race import audit
from ..race.entrant import Attempt, Entrant
from ..race.race import Race
from ..stats import estimates

# How much slower than the leader an entrant must surely be, on the log scale: what is as near may
# still be chosen for being simpler.
MARGIN = 0.02


class Knockout(Race):
    """`entrants[0]` stays to the end, since all are shown beside it."""

    def look(self, affordable: float) -> str:
        leader = fastest(self.entrants)
        if leader is None:
            return "nothing left to measure"
        for entrant in self.entrants[1:]:
            if entrant.live and entrant is not leader and not entrant.own_work:
                self.let_go(entrant, leader)
        others = [entrant for entrant in self.entrants[1:] if entrant.live and entrant is not leader]
        if not others:
            return f"all others are surely slower than {leader.case.label}"
        return super().look(affordable)

    def let_go(self, entrant: Entrant, leader: Entrant) -> None:
        ratio = estimates.ratio(leader.latencies(), entrant.latencies())
        if math.isfinite(ratio.half_width) and math.log(ratio.low) > MARGIN:
            with Attempt(entrant):
                audit.settle(entrant, over=True)
            entrant.let_go = (
                f"left the search after {len(entrant.seen.timed)} blocks: surely slower than"
                f" {leader.case.label}, {ratio.centre:.2f} times its time"
            )


def fastest(entrants: list[Entrant]) -> Entrant | None:
    """Returns the entrant with the least latency so far among those that race."""
    timed = [entrant for entrant in entrants if entrant.live and entrant.seen.timed and not entrant.own_work]
    return min(
        timed,
        key=lambda entrant: (
            estimates.ratio(entrants[0].latencies(), entrant.latencies()).centre
            if entrant is not entrants[0]
            else 1.0
        ),
        default=None,
    )
