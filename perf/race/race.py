"""A race: entrants measured side by side in blocks of fresh worker processes (randomised complete
block design).

In a block every entrant has a worker of its own; all are stopped but the one whose turn it is, and
turns go round in random order, so that the drift of the machine meets all alike and cancels in
their ratios. The parent only waits on a socket.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..artefacts import writing
from ..machine import cores
from ..stats import estimates
from ..terms.case import Plan
from . import audit
from .budget import Rest
from .checking import check_entrant
from .entrant import Attempt, Entrant, load_worker
from .messages import Audit, Finish, TakeTail, TakeTurn, Warm, Weigh
from .servers import Servers

# Shares of a race's budget: for warming up until its first look, and for weighing energy.
WARM_SHARE = 0.2
ENERGY_SHARE = 0.2
# A window of energy must have room for this multiple of what the last one took.
ENERGY_MARGIN = 1.2


@dataclass
class Race:
    """What the entrants share. `entrants[0]` is the baseline."""

    entrants: list[Entrant]
    plan: Plan
    servers: Servers
    report: Callable[[str], None]
    journal: Callable[[], None]
    turn: int = 0
    stopped_by: str = ""
    # Blocks that are raced whatever the budget.
    least: int = 0

    def run(self) -> None:
        """Checks every entrant, then blocks until the ratios are known well enough, the budget is
        spent, or it is hopeless; `stopped_by` says which.
        """
        order = random.Random(self.plan.seed)
        try:
            self.check()
            rounds, start, first = self.plan.rounds, time.monotonic(), self.plan.looks[0]
            for number in range(max(self.plan.looks)):
                if not any(entrant.live for entrant in self.entrants):
                    self.stopped_by = "nothing left to measure"
                    return
                began = time.monotonic()
                rounds_s, weighed_s = self.block(number, rounds, order)
                self.journal()
                now, done = time.monotonic(), number + 1
                overhead_s = max(0.0, now - began - rounds_s - weighed_s)
                rest = Rest(
                    self.plan.budget_s - (now - start),
                    max(1e-6, rounds_s / rounds),
                    overhead_s,
                    alike=done != self.plan.fresh_blocks,
                )
                if done < first:
                    rounds = rest.rounds(self.plan.rounds, first - done)
                elif done in self.plan.looks:
                    if verdict := self.look(done + max(0.0, rest.blocks(rounds))):
                        self.stopped_by = verdict
                        return
                    rounds = rest.rounds(self.best_rounds(rounds, rest))
                if done >= self.least and rest.over(rounds):
                    self.stopped_by = f"budget of {self.plan.budget_s:g} s"
                    return
            self.stopped_by = f"most blocks ({max(self.plan.looks)})"
        finally:
            self.end()
            for entrant in self.entrants:
                if entrant.live:
                    with Attempt(entrant):
                        audit.settle(entrant, over=True)

    def check(self) -> None:
        """Checks every entrant that does the workload's work; those that fail leave the race.

        What was seen completes the entrant's manifest.
        """
        for entrant in self.entrants:
            if not entrant.own_work:
                self.report(f"checking {entrant.case.label}")
                with Attempt(entrant):
                    check_entrant(entrant, self.plan, self.servers)
                refusal = entrant.refusal
                with Attempt(entrant):
                    writing.complete(
                        entrant.artefact,
                        entrant.oracle.folder,
                        entrant.needs_source,
                        entrant.placement,
                        entrant.deviation,
                        refusal,
                    )
                entrant.refusal = refusal or entrant.refusal

    def end(self) -> None:
        """Ends all workers of the entrants."""
        for entrant in self.entrants:
            entrant.end_worker()

    def block(
        self, number: int, rounds: int, order: random.Random, fresh: bool = False
    ) -> tuple[float, float]:
        """Makes workers ready one after the other, takes turns in random order, then the tails.

        fresh: its workers import everything themselves, as those of the plan's first blocks do.
        Returns what its rounds took and what energy took, in s.
        """
        before = cores.ticks()[None]
        self.report(f"block {number + 1}")
        for entrant in self.entrants:
            entrant.spent_s = 0.0
        for entrant in self.shuffled(order):
            with Attempt(entrant):
                self.enter(entrant, number, fresh or number < self.plan.fresh_blocks)
        start = time.monotonic()
        audited = {id(entrant): order.randrange(rounds) for entrant in self.entrants}
        for turn in range(rounds):
            for entrant in self.shuffled(order):
                with Attempt(entrant):
                    self.take_turn(entrant)
                    if turn == audited[id(entrant)]:
                        self.audit(entrant)
        rounds_s, weighed_s = time.monotonic() - start, 0.0
        for entrant in self.shuffled(order):
            with Attempt(entrant):
                self.finish(entrant)
                weighed_s += self.weigh(entrant)
        self.end()
        steal = cores.stolen(before, cores.ticks()[None])
        for entrant in self.entrants:
            if len(entrant.seen.blocks) == number + 1:
                entrant.seen.blocks[-1].steal = steal
                entrant.seen.blocks[-1].spent_s = entrant.spent_s
        return rounds_s, weighed_s

    def shuffled(self, order: random.Random) -> list[Entrant]:
        """The entrants that are still in the race, in random order."""
        return [entrant for entrant in order.sample(self.entrants, len(self.entrants)) if entrant.live]

    def enter(self, entrant: Entrant, number: int, fresh: bool) -> None:
        """Gives the entrant a warm worker and a new block. Raises Refusal."""
        block = load_worker(entrant, self.plan, self.servers, f"block-{number}", fresh)
        cap_s = WARM_SHARE * self.plan.budget_s / (self.plan.looks[0] * len(self.entrants))
        warm = Warm(self.plan.sample_s, self.plan.longest_sample_s, cap_s)
        block.warm = entrant.running().ask(warm, self.plan.timeout_s)
        entrant.seen.blocks.append(block)

    def take_turn(self, entrant: Entrant) -> None:
        """Adds one sample to the entrant's block. Raises Refusal."""
        sampled = entrant.running().ask(TakeTurn(entrant.limits is not None), self.plan.timeout_s)
        clocks = time.monotonic(), sampled.clock_s
        rmse = audit.compare(entrant, sampled)
        self.turn += 1
        block = entrant.seen.blocks[-1]
        block.turns.append(sampled.turn)
        block.numbers.append(self.turn)
        block.rmse.append(rmse)
        block.clocks.append(clocks)
        if sampled.joules is not None:
            block.joules.append(sampled.joules)

    def audit(self, entrant: Entrant) -> None:
        """Notes what calls with inputs that were kept back say. Raises Refusal."""
        if entrant.limits is not None:
            audited = entrant.running().ask(Audit(), self.plan.timeout_s)
            entrant.doubts.append(audit.judge(entrant, audited) if audited is not None else "")

    def finish(self, entrant: Entrant) -> None:
        """Takes the tail of the entrant's block, its peak memory and what the GPU says. Raises
        Refusal.
        """
        worker, block = entrant.running(), entrant.seen.blocks[-1]
        if entrant.doubts:
            entrant.doubts[-1] = (
                entrant.doubts[-1] or audit.clocks(block) or audit.threads(entrant, block, self.plan)
            )
        audit.settle(entrant, over=False)
        if self.plan.tail_s > 0:
            block.tail = worker.ask(TakeTail(self.plan.tail_s), self.plan.timeout_s)
        finished = worker.ask(Finish(), self.plan.timeout_s)
        block.run_peak_bytes, block.gpu = finished.run_peak_bytes, finished.gpu
        block.device, block.no_device = finished.device, finished.no_device

    def weigh(self, entrant: Entrant) -> float:
        """Takes the energy of a GPU over enough updates of its counter, in as many blocks as a
        share of the budget has room for; where it has room for none, no more time is spent on it.

        Returns what it took in s. Raises Refusal.
        """
        seen = entrant.seen
        unmetered = seen.no_meter is not None or seen.no_energy is not None
        if not entrant.case.target.startswith("cuda:") or entrant.own_work or unmetered:
            return 0.0
        left_s = ENERGY_SHARE * self.plan.budget_s / len(self.entrants) - sum(entrant.weighed_s)
        if entrant.weighed_s and left_s < ENERGY_MARGIN * entrant.weighed_s[-1]:
            return 0.0
        start = time.monotonic()
        weighed = entrant.running().ask(Weigh(min(left_s, self.plan.timeout_s / 2)), self.plan.timeout_s)
        entrant.weighed_s.append(time.monotonic() - start)
        seen.blocks[-1].energy = weighed.window
        if all(block.energy is None for block in seen.blocks):
            seen.no_energy = weighed.reason
        return entrant.weighed_s[-1]

    def look(self, affordable: float) -> str:
        """Why the race may end now; empty if it goes on.

        Only ratios to the baseline count: the absolute latency has no target.
        """
        open_ends: list[float] = []
        others = [entrant for entrant in self.entrants[1:] if not entrant.own_work]
        if not others:
            return "no other entrant to compare with"
        for entrant in others:
            if entrant.live and self.entrants[0].live:
                width = estimates.ratio(self.entrants[0].latencies(), entrant.latencies()).half_width
                if width > self.plan.half_width:
                    open_ends.append(len(entrant.seen.timed) * (width / self.plan.half_width) ** 2)
        if not open_ends:
            return f"half-width of {self.plan.half_width:.0%}"
        return "hopeless: four times the budget would not do" if min(open_ends) > 4 * affordable else ""

    def best_rounds(self, rounds: int, rest: Rest) -> int:
        """Rounds a block that waste least time, for the ratio that needs most."""
        live = [entrant for entrant in self.entrants[1:] if entrant.live and not entrant.own_work]
        costs = rest.overhead_s, rest.round_s
        return max(
            [
                estimates.best_rounds(
                    estimates.paired(self.entrants[0].latencies(), entrant.latencies()), *costs
                )
                for entrant in live
            ],
            default=rounds,
        )
