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
from .handle import Entrant
from .observations import Block, Observations
from .servers import Servers
from .timing import Turn, WarmUp

WARM_SHARE = 0.2
ENERGY_SHARE = 0.2
ENERGY_MARGIN = 1.2


@dataclass
class Oracle:
    """What lanes are checked against: a workload, the folder of its reference outputs, and the
    worker that made them and scores others.

    An artefact by itself (artefact.py) has no workload, no referee (nothing is scored then),
    and random inputs only. judged: by its task metric when it was built, for int8.
    """

    reference: tuple[str, str]
    folder: Path
    referee: Entrant
    kinds: tuple[str, ...] = ("random", "real")
    judged: bool = False


@dataclass
class Lane:
    """One entrant of a race, over all its blocks.

    `refusal` is why it left the race; its blocks up to then are kept.

    spent_s: of the present block; weighed_s: of each window for energy.

    kind: lanes of one kind preload the same modules but for the workload's, so they may share a
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
    worker: Entrant | None = None
    spent_s: float = 0.0
    weighed_s: list[float] = field(default_factory=list)

    @property
    def live(self) -> bool:
        return self.refusal is None

    def latencies(self) -> list[list[float]]:
        return [[turn.call_s for turn in block.turns] for block in self.seen.blocks]


@dataclass
class Race:
    """What the entrants share. `lanes[0]` is the baseline."""

    lanes: list[Lane]
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
                if not any(lane.live for lane in self.lanes):
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
        """The oracle for every lane that does the workload's work; those that fail leave the race.

        What it found completes the lane's manifest.
        """
        for lane in self.lanes:
            if not lane.own_work:
                self.report(f"checking {lane.case.label}")
                with Attempt(lane):
                    self.judge(lane)
                found = lane.refusal
                with Attempt(lane):
                    writing.complete(
                        lane.artefact,
                        lane.oracle.folder,
                        lane.needs_source,
                        lane.placement,
                        lane.deviation,
                        lane.refusal,
                    )
                lane.refusal = found or lane.refusal

    def end(self) -> None:
        """Ends all workers of the lanes."""
        for lane in self.lanes:
            if lane.worker is not None:
                lane.worker.kill()

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
        for lane in self.lanes:
            lane.spent_s = 0.0
        for lane in shuffled(self.lanes, order):
            if lane.live:
                with Attempt(lane):
                    self.enter(lane, number, fresh or number < self.plan.fresh_blocks)
        began = time.monotonic()
        for _ in range(rounds):
            for lane in shuffled(self.lanes, order):
                if lane.live:
                    with Attempt(lane) as worker:
                        answer = worker.ask("turn", self.plan.timeout_s)
                        self.turn += 1
                        block = lane.seen.blocks[-1]
                        block.turns.append(msgspec.convert(answer["turn"], Turn))
                        block.numbers.append(self.turn)
                        block.rmse.append(float(answer["rmse"]))
                        if answer["joules"] is not None:
                            block.joules.append(answer["joules"])
        rounds_s, weighed_s = time.monotonic() - began, 0.0
        for lane in shuffled(self.lanes, order):
            if lane.live:
                with Attempt(lane) as worker:
                    block = lane.seen.blocks[-1]
                    if self.plan.tail_s > 0:
                        block.tail = worker.ask("tail", self.plan.timeout_s, cap_s=self.plan.tail_s)
                    finished = worker.ask("finish", self.plan.timeout_s)
                    block.run_peak_bytes, block.gpu = finished["run_peak_bytes"], finished["gpu"]
                    block.device, block.no_device = msgspec.convert(
                        (finished["device"], finished["no_device"]), tuple[Span | None, Reason | None]
                    )
                    weighed_s += self.weigh(lane, worker)
        for lane in self.lanes:
            if lane.worker is not None:
                lane.worker.kill()
                lane.worker = None
        taken = cores.stolen(before, cores.ticks()[None])
        for lane in self.lanes:
            if len(lane.seen.blocks) == number + 1:
                lane.seen.blocks[-1].steal, lane.seen.blocks[-1].spent_s = taken, lane.spent_s
        return rounds_s, weighed_s

    def weigh(self, lane: Lane, worker: Entrant) -> float:
        """Energy of a GPU, over enough updates of its counter, in as many blocks as a share of the
        budget has room for; where it has room for none, no more time is spent on it.

        Returns what it took in s.
        """
        if (
            not lane.case.target.startswith("cuda:")
            or lane.own_work
            or lane.seen.no_meter is not None
            or lane.seen.no_energy is not None
        ):
            return 0.0
        left_s = ENERGY_SHARE * self.plan.budget_s / len(self.lanes) - sum(lane.weighed_s)
        if lane.weighed_s and left_s < ENERGY_MARGIN * lane.weighed_s[-1]:
            return 0.0
        began = time.monotonic()
        found = worker.ask("energy", self.plan.timeout_s, cap_s=min(left_s, self.plan.timeout_s / 2))
        lane.weighed_s.append(time.monotonic() - began)
        lane.seen.blocks[-1].energy = msgspec.convert(found["window"], Window | None)
        if all(block.energy is None for block in lane.seen.blocks):
            lane.seen.no_energy = msgspec.convert(found["reason"], Reason | None)
        return lane.weighed_s[-1]

    def enter(self, lane: Lane, number: int, fresh: bool) -> None:
        """A worker for this lane: imports, load, first call, warm-up. Raises Refusal."""
        worker, block = self.open(lane, f"block-{number}", fresh)
        cap_s = WARM_SHARE * self.plan.budget_s / (self.plan.looks[0] * len(self.lanes))
        warm = worker.ask(
            "warm",
            self.plan.timeout_s,
            sample_s=self.plan.sample_s,
            longest_s=self.plan.longest_sample_s,
            cap_s=cap_s,
            limits=lane.limits,
        )
        block.warm = msgspec.convert(warm, WarmUp)
        lane.seen.blocks.append(block)

    def open(self, lane: Lane, name: str, fresh: bool) -> tuple[Entrant, Block]:
        """The lane's next worker, loaded: a fresh process, or forked where its imports allow it.

        Raises Refusal.
        """
        timeout_s, log = self.plan.timeout_s, lane.log / f"{name}.txt"
        start = time.perf_counter()
        if fresh:
            lane.worker = Entrant.start(lane.environment, log)
        else:
            lane.worker, fresh = self.servers.worker(lane.kind, lane.environment, lane.preload, log)
        worker = lane.worker
        imported = worker.ask("preload", timeout_s, names=lane.preload)
        start_s = time.perf_counter() - start
        given: dict[str, Any] = {
            "reference": lane.oracle.reference,
            "folder": str(lane.artefact),
            "oracle": str(lane.oracle.folder),
        }
        loaded = worker.ask("load", timeout_s, case=lane.case, threads=self.plan.threads, **given)
        lane.seen.no_meter = loaded.pop("no_meter")
        lane.needs_source = loaded.pop("needs_source")
        return worker, Block(fresh=fresh, start_s=start_s, import_peak_bytes=imported["peak_bytes"], **loaded)

    def judge(self, lane: Lane) -> None:
        """The oracle, in a worker of its own: random, real and rotating inputs, then the task
        metric, then where the work ran. Raises Refusal.
        """
        timeout_s, outputs, oracle = self.plan.timeout_s, lane.outputs, lane.oracle
        worker, _ = self.open(lane, "check", fresh=False)
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
            lane.case.precision,
            lane.seen.info["terms"],
        )
        lane.deviation = Deviation(found)
        has_task = lane.seen.info["task"] is not None or oracle.judged
        check.judge(lane.deviation, lane.case.precision, has_task)
        if lane.seen.info["task"] is not None:
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
            lane.deviation = Deviation(found, check.task(lane.seen.info["task"], scores, lane.case.precision))
            check.judge(lane.deviation, lane.case.precision, has_task)
        lane.limits = check.timed_limits(oracle.folder, outputs / "timed.npz", found)
        lane.placement = msgspec.convert(worker.ask("place", timeout_s), Placement)
        if lane.placement.wrong is not None:
            lane.fell_back = True
            raise Refusal(lane.placement.wrong.code, lane.placement.wrong.detail)
        worker.kill()
        lane.worker = None

    def look(self, affordable: float) -> str:
        """Why the race may end now; empty if it goes on.

        Only ratios to the baseline count: the absolute latency has no target.
        """
        open_ends, others = [], [lane for lane in self.lanes[1:] if not lane.own_work]
        if not others:
            return "no other entrant to compare with"
        for lane in others:
            if lane.live and self.lanes[0].live:
                width = estimates.ratio(self.lanes[0].latencies(), lane.latencies()).half_width
                if width > self.plan.half_width:
                    open_ends.append(len(lane.seen.timed) * (width / self.plan.half_width) ** 2)
        if not open_ends:
            return f"half-width of {self.plan.half_width:.0%}"
        return "hopeless: four times the budget would not do" if min(open_ends) > 4 * affordable else ""

    def best_rounds(self, rounds: int, rest: Rest) -> int:
        """Rounds a block that waste least time, for the ratio that needs most."""
        live = [lane for lane in self.lanes[1:] if lane.live and not lane.own_work]
        costs = rest.overhead_s, rest.round_s
        return max(
            [
                estimates.best_rounds(estimates.paired(self.lanes[0].latencies(), lane.latencies()), *costs)
                for lane in live
            ],
            default=rounds,
        )


class Attempt:
    """Lets one lane's worker run, stops it afterwards, and turns a refusal into the lane's end.

    The others go on.
    """

    def __init__(self, lane: Lane) -> None:
        self.lane = lane

    def __enter__(self) -> Entrant:
        self.start = time.monotonic()
        if self.lane.worker is not None:
            self.lane.worker.go()
        return self.lane.worker  # type: ignore[return-value]  # only `enter` runs without one, and it does not use it

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        worker = self.lane.worker
        self.lane.spent_s += time.monotonic() - self.start
        if isinstance(error, Refusal):
            self.lane.refusal = error.reason
            if worker is not None:
                worker.kill()
                self.lane.worker = None
            return True
        if worker is not None and error is None:
            worker.stop()
        return False


def shuffled(lanes: list[Lane], order: random.Random) -> list[Lane]:
    return order.sample(lanes, len(lanes))
