"""A race: entrants measured side by side in blocks of fresh worker processes (randomised complete
block design).

In a block every entrant has a worker of its own; all are stopped but the one whose turn it is, and
turns go round in random order, so that the drift of the machine meets all alike and cancels in
their ratios. The parent only waits on a socket.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ..artefacts import writing
from ..machine import cores
from ..machine.telemetry import Span, Window
from ..oracle import check
from ..stats import estimates
from ..terms.case import Case, Plan
from ..terms.contract import Backend
from ..terms.reasons import Reason, Refusal
from ..terms.result import Deviation, Placement
from .budget import Rest
from .handle import Worker
from .observations import Block, Observations
from .servers import Servers
from .timing import Turn, WarmUp

WARM_SHARE = 0.2
ENERGY_SHARE = 0.2
ENERGY_MARGIN = 1.2


@dataclass
class Oracle:
    """What entrants are checked against: a workload, the folder of its reference outputs, and the
    worker that made them and scores others.

    An artefact by itself (artefact.py) has no workload, no referee (nothing is scored then),
    and random inputs only. judged: by its task metric when it was built, for int8.
    """

    reference: tuple[str, str]
    folder: Path
    referee: Worker
    kinds: tuple[str, ...] = ("random", "real")
    judged: bool = False


@dataclass
class Entrant:
    """One entrant of a race, over all its blocks.

    `refusal` is why it left the race; its blocks up to then are kept.

    spent_s: of the present block; weighed_s: of each window for energy.

    kind: entrants of one kind preload the same modules but for the workload's, so they may share a
    fork server.
    """

    case: Case
    backend: Backend
    preload: list[str]
    environment: Mapping[str, str]
    artefact: Path
    outputs: Path
    log: Path
    seen: Observations
    oracle: Oracle
    own_work: bool = False
    kind: str = ""
    placement: Placement | None = None
    deviation: Deviation | None = None
    limits: list[float] | None = None
    refusal: Reason | None = None
    fell_back: bool = False
    needs_source: bool | None = None
    warnings: list[str] = field(default_factory=list)
    worker: Worker | None = None
    spent_s: float = 0.0
    weighed_s: list[float] = field(default_factory=list)

    @property
    def live(self) -> bool:
        return self.refusal is None

    def latencies(self) -> list[list[float]]:
        return [[turn.call_s for turn in block.turns] for block in self.seen.blocks]


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
                if rest.over(rounds):
                    self.stopped_by = f"budget of {self.plan.budget_s:g} s"
                    return
            self.stopped_by = f"most blocks ({max(self.plan.looks)})"
        finally:
            self.end()

    def check(self) -> None:
        """Checks every entrant that does the workload's work; those that fail leave the race.

        What it found completes the entrant's manifest.
        """
        for entrant in self.entrants:
            if not entrant.own_work:
                self.report(f"checking {entrant.case.label}")
                with Attempt(entrant):
                    self.judge(entrant)
                found = entrant.refusal
                with Attempt(entrant):
                    writing.complete(
                        entrant.artefact,
                        entrant.oracle.folder,
                        entrant.needs_source,
                        entrant.placement,
                        entrant.deviation,
                        entrant.refusal,
                    )
                entrant.refusal = found or entrant.refusal

    def end(self) -> None:
        """Ends all workers of the entrants."""
        for entrant in self.entrants:
            if entrant.worker is not None:
                entrant.worker.kill()

    def block(
        self, number: int, rounds: int, order: random.Random, fresh: bool = False
    ) -> tuple[float, float]:
        """One worker each, made ready one after the other, then turns in random order, then single
        calls for the tails.

        fresh: its workers import everything themselves, as those of the plan's first blocks do.
        Returns what its rounds took and what energy took, in s.
        """
        before = cores.ticks()[None]
        self.report(f"block {number + 1}")
        for entrant in self.entrants:
            entrant.spent_s = 0.0
        for entrant in shuffled(self.entrants, order):
            if entrant.live:
                with Attempt(entrant):
                    self.enter(entrant, number, fresh or number < self.plan.fresh_blocks)
        began = time.monotonic()
        for _ in range(rounds):
            for entrant in shuffled(self.entrants, order):
                if entrant.live:
                    with Attempt(entrant) as worker:
                        answer = worker.ask("turn", self.plan.timeout_s)
                        self.turn += 1
                        block = entrant.seen.blocks[-1]
                        block.turns.append(msgspec.convert(answer["turn"], Turn))
                        block.numbers.append(self.turn)
                        block.rmse.append(float(answer["rmse"]))
                        if answer["joules"] is not None:
                            block.joules.append(answer["joules"])
        rounds_s, weighed_s = time.monotonic() - began, 0.0
        for entrant in shuffled(self.entrants, order):
            if entrant.live:
                with Attempt(entrant) as worker:
                    block = entrant.seen.blocks[-1]
                    if self.plan.tail_s > 0:
                        block.tail = worker.ask("tail", self.plan.timeout_s, cap_s=self.plan.tail_s)
                    finished = worker.ask("finish", self.plan.timeout_s)
                    block.run_peak_bytes, block.gpu = finished["run_peak_bytes"], finished["gpu"]
                    block.device, block.no_device = msgspec.convert(
                        (finished["device"], finished["no_device"]), tuple[Span | None, Reason | None]
                    )
                    weighed_s += self.weigh(entrant, worker)
        for entrant in self.entrants:
            if entrant.worker is not None:
                entrant.worker.kill()
                entrant.worker = None
        taken = cores.stolen(before, cores.ticks()[None])
        for entrant in self.entrants:
            if len(entrant.seen.blocks) == number + 1:
                entrant.seen.blocks[-1].steal, entrant.seen.blocks[-1].spent_s = taken, entrant.spent_s
        return rounds_s, weighed_s

    def weigh(self, entrant: Entrant, worker: Worker) -> float:
        """Energy of a GPU, over enough updates of its counter, in as many blocks as a share of the
        budget has room for; where it has room for none, no more time is spent on it.

        Returns what it took in s.
        """
        if (
            not entrant.case.target.startswith("cuda:")
            or entrant.own_work
            or entrant.seen.no_meter is not None
            or entrant.seen.no_energy is not None
        ):
            return 0.0
        left_s = ENERGY_SHARE * self.plan.budget_s / len(self.entrants) - sum(entrant.weighed_s)
        if entrant.weighed_s and left_s < ENERGY_MARGIN * entrant.weighed_s[-1]:
            return 0.0
        began = time.monotonic()
        found = worker.ask("energy", self.plan.timeout_s, cap_s=min(left_s, self.plan.timeout_s / 2))
        entrant.weighed_s.append(time.monotonic() - began)
        entrant.seen.blocks[-1].energy = msgspec.convert(found["window"], Window | None)
        if all(block.energy is None for block in entrant.seen.blocks):
            entrant.seen.no_energy = msgspec.convert(found["reason"], Reason | None)
        return entrant.weighed_s[-1]

    def enter(self, entrant: Entrant, number: int, fresh: bool) -> None:
        """A worker for this entrant: imports, load, first call, warm-up. Raises Refusal."""
        worker, block = self.open(entrant, f"block-{number}", fresh)
        cap_s = WARM_SHARE * self.plan.budget_s / (self.plan.looks[0] * len(self.entrants))
        warm = worker.ask(
            "warm",
            self.plan.timeout_s,
            sample_s=self.plan.sample_s,
            longest_s=self.plan.longest_sample_s,
            cap_s=cap_s,
            limits=entrant.limits,
        )
        block.warm = msgspec.convert(warm, WarmUp)
        entrant.seen.blocks.append(block)

    def open(self, entrant: Entrant, name: str, fresh: bool) -> tuple[Worker, Block]:
        """The entrant's next worker, loaded: a fresh process, or forked where its imports allow it.

        Raises Refusal.
        """
        timeout_s, log = self.plan.timeout_s, entrant.log / f"{name}.txt"
        start = time.perf_counter()
        if fresh:
            entrant.worker = Worker.start(entrant.environment, log)
        else:
            entrant.worker, fresh = self.servers.worker(
                entrant.kind, entrant.environment, entrant.preload, log
            )
        worker = entrant.worker
        imported = worker.ask("preload", timeout_s, names=entrant.preload)
        start_s = time.perf_counter() - start
        given: dict[str, Any] = {
            "reference": entrant.oracle.reference,
            "folder": str(entrant.artefact),
            "oracle": str(entrant.oracle.folder),
        }
        loaded = worker.ask("load", timeout_s, case=entrant.case, threads=self.plan.threads, **given)
        entrant.seen.no_meter = loaded.pop("no_meter")
        entrant.needs_source = loaded.pop("needs_source")
        return worker, Block(fresh=fresh, start_s=start_s, import_peak_bytes=imported["peak_bytes"], **loaded)

    def judge(self, entrant: Entrant) -> None:
        """The oracle, in a worker of its own: random, real and rotating inputs, then the task
        metric, then where the work ran. Raises Refusal.
        """
        timeout_s, outputs, oracle = self.plan.timeout_s, entrant.outputs, entrant.oracle
        worker, _ = self.open(entrant, "check", fresh=False)
        outputs.mkdir(parents=True, exist_ok=True)
        for kind in (*oracle.kinds, "timed"):
            worker.ask(
                "check",
                timeout_s,
                inputs=str(oracle.folder / f"{kind}.npz"),
                outputs=str(outputs / f"{kind}.npz"),
            )
        found = check.distances(
            oracle.folder,
            {kind: outputs / f"{kind}.npz" for kind in oracle.kinds},
            entrant.case.precision,
            entrant.seen.info["terms"],
        )
        entrant.deviation = Deviation(found)
        has_task = entrant.seen.info["task"] is not None or oracle.judged
        check.judge(entrant.deviation, entrant.case.precision, has_task)
        if entrant.seen.info["task"] is not None:
            worker.ask(
                "evaluate",
                timeout_s,
                inputs=str(oracle.folder / "validation.npz"),
                outputs=str(outputs / "validation.npz"),
            )
            worker.stop()
            oracle.referee.go()
            scores = oracle.referee.ask("score", timeout_s, path=str(outputs / "validation.npz"))
            oracle.referee.stop()
            worker.go()
            entrant.deviation = Deviation(
                found, check.task(entrant.seen.info["task"], scores, entrant.case.precision)
            )
            check.judge(entrant.deviation, entrant.case.precision, has_task)
        entrant.limits = check.timed_limits(oracle.folder, outputs / "timed.npz", found)
        entrant.placement = msgspec.convert(worker.ask("place", timeout_s), Placement)
        if entrant.placement.wrong is not None:
            entrant.fell_back = True
            raise Refusal(entrant.placement.wrong.code, entrant.placement.wrong.detail)
        worker.kill()
        entrant.worker = None

    def look(self, affordable: float) -> str:
        """Why the race may end now; empty if it goes on.

        Only ratios to the baseline count: the absolute latency has no target.
        """
        open_ends, others = [], [entrant for entrant in self.entrants[1:] if not entrant.own_work]
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


class Attempt:
    """Lets one entrant's worker run, stops it afterwards, and turns a refusal into its end.

    The others go on.
    """

    def __init__(self, entrant: Entrant) -> None:
        self.entrant = entrant

    def __enter__(self) -> Worker:
        self.start = time.monotonic()
        if self.entrant.worker is not None:
            self.entrant.worker.go()
        return self.entrant.worker  # type: ignore[return-value]  # only `enter` runs without one, and it does not use it

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        worker = self.entrant.worker
        self.entrant.spent_s += time.monotonic() - self.start
        if isinstance(error, Refusal):
            self.entrant.refusal = error.reason
            if worker is not None:
                worker.kill()
                self.entrant.worker = None
            return True
        if worker is not None and error is None:
            worker.stop()
        return False


def shuffled(entrants: list[Entrant], order: random.Random) -> list[Entrant]:
    return order.sample(entrants, len(entrants))
