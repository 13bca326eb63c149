"""One case of `hotlap ab`: BASE and HEAD side by side, block by block."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, field

import msgspec

from ..race.entrant import Entrant
from ..race.race import Race
from ..stats import compare, estimates
from ..stats.compare import LOOKS, Judgement
from ..terms.case import Case

# A level for each look, and the looks that it was solved for (compare.level).
Level = tuple[float, tuple[int, ...]]


@dataclass
class Duel:
    """The two sides of one case, and what is known of them so far."""

    case: Case
    # Its two entrants, BASE and HEAD.
    race: Race
    # Worsening of the latency that is let pass, as a share.
    tolerance: float
    # Of the turns.
    order: random.Random = field(default_factory=lambda: random.Random(0))
    # How many were raced.
    blocks: int = 0
    # What the last look that it reached says; None before the first.
    judgement: Judgement | None = None
    # Whether another look may decide it.
    open: bool = True
    # Lines for the reader of its finding.
    notes: list[str] = field(default_factory=list)

    @property
    def sides(self) -> tuple[Entrant, Entrant]:
        """The entrants of BASE and HEAD."""
        base, head = self.race.entrants
        return base, head

    @property
    def alive(self) -> bool:
        """Whether neither side has left the race."""
        return all(entrant.live for entrant in self.sides)

    @property
    def steady(self) -> bool:
        """Whether both sides are: of one that is not, nothing is told."""
        return all(entrant.seen.steady for entrant in self.sides)

    def up_to(self, count: int, deadline: float, fresh: bool = False, least: int = min(LOOKS)) -> None:
        """Races more blocks, up to this count or to the deadline (time.monotonic); the first
        `least`, by default as many as the first look needs, are raced in any case.
        """
        while self.blocks < count and self.alive and (time.monotonic() < deadline or self.blocks < least):
            self.race.block(self.blocks, self.race.plan.rounds, self.order, fresh)
            self.blocks += 1

    def values(self, first: int = 0) -> list[float]:
        """Returns the log ratios HEAD / BASE of the blocks from `first` on."""
        base, head = (entrant.latencies() for entrant in self.sides)
        return [math.log(estimates.middle(block)) for block in estimates.paired(base, head)[first:]]

    def judged(self, worse: Level, fine: Level, first: int = 0) -> Judgement:
        """Returns what the blocks from `first` on say, at the levels of a regression and a pass.

        A look that a level was not solved for decides nothing.
        """
        values = self.values(first)
        judgement = compare.lockstep(values, self.tolerance, worse[0], fine[0])
        looks = {"regression": worse[1], "pass": fine[1]}.get(judgement.verdict)
        if looks is None or len(values) in looks:
            return judgement
        return msgspec.structs.replace(judgement, verdict="inconclusive")
