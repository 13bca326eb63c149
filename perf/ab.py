"""HEAD against BASE in one job: both sides of each case in the same blocks, until the gate's tests have decided (shared/MEASURING.md b).

prepare both sides -> check -> blocks up to each look -> judge all cases together -> confirm regressions on fresh blocks -> verdict
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from . import compare, gate, ledger, sides, stats
from .answer import answer
from .case import Case
from .compare import LOOKS, Judgement
from .environment import Environment
from .policy import Policy
from .prepare import Preparation
from .race import Lane, Race
from .reasons import Misuse, Refusal
from .result import Plan, Result, Results, encode, write
from .revisions import Revision
from .servers import Servers
from .sides import Known, Side
from .verdict import Finding, Verdict


@dataclass
class Duel:
    """The two sides of one case, and what is known of them so far."""

    case: Case
    race: Race
    tolerance: float
    order: random.Random = field(default_factory=lambda: random.Random(0))
    blocks: int = 0
    found: Judgement | None = None
    open: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def sides(self) -> tuple[Lane, Lane]:
        base, head = self.race.lanes
        return base, head

    @property
    def alive(self) -> bool:
        return all(lane.live for lane in self.sides)

    def up_to(self, count: int, deadline: float) -> None:
        """More blocks, up to so many or to the deadline."""
        while self.blocks < count and self.alive and (time.monotonic() < deadline or self.blocks < min(LOOKS)):
            self.race.block(self.blocks, self.race.plan.rounds, self.order)
            self.blocks += 1

    def values(self, first: int = 0) -> list[float]:
        """Log ratios HEAD / BASE of the blocks from `first` on."""
        base, head = (lane.latencies() for lane in self.sides)
        return [math.log(stats.middle(block)) for block in stats.paired(base, head)[first:]]


class Comparison:
    """All cases of two revisions. `verdict` does it, `results` are what was measured of either side."""

    def __init__(self, base: Revision, head: Revision, policy: Policy, plan: Plan, folder: Path, environment: Environment, report: Callable[[str], None]) -> None:
        self.base, self.head, self.policy, self.plan, self.folder, self.report = base, head, policy, plan, folder, report
        self.environments = tuple(msgspec.structs.replace(environment, commit=side.sha) for side in (base, head))
        self.servers = Servers(folder, plan.timeout_s, report)
        self.preparations: dict[tuple[str, str], Preparation] = {}
        self.loaded: dict[str, dict[str, str]] = {"base": {}, "head": {}}
        self.duels: list[Duel] = []
        self.reasons: list[str] = []
        self.findings: list[Finding] = []

    def verdict(self, cases: Sequence[Case], repository: Path | None, aa: Path) -> Verdict:
        try:
            for case in cases:
                self.prepare(case, repository)
            self.refuse_the_same_code(repository)
            for duel in self.duels:
                self.report(f"{duel.case.id}: checking both sides")
                duel.race.check()
            deadline = time.monotonic() + self.plan.budget_s
            for look in LOOKS:
                for duel in self.duels:
                    if duel.open:
                        duel.up_to(look, deadline)
                self.judge(self.duels)
                if not any(duel.open for duel in self.duels) or time.monotonic() > deadline:
                    break
            self.confirm(time.monotonic() + self.plan.budget_s)
            self.against_itself(aa)
            return self.conclude(aa)
        finally:
            self.close()

    def prepare(self, case: Case, repository: Path | None) -> None:
        """Both lanes of a case, or the finding that one of them could not be made."""
        lanes: list[Lane] = []
        for side in (self.base, self.head):
            self.report(f"{case.id}: building {side.name}")
            try:
                lanes.append(self.preparation(side, case, repository).build(case))
            except Refusal as refusal:
                self.findings.append(self.unbuilt(case, side, refusal))
                if side is self.base:
                    return
        if len(lanes) == 2:
            race = Race(lanes, self.plan, self.servers, lambda text: self.report(f"{case.id}: {text}"), lambda: None)
            self.duels.append(Duel(case, race, self.policy.of(case.id).tolerance["latency"]))

    def unbuilt(self, case: Case, side: Revision, refusal: Refusal) -> Finding:
        """HEAD lost what BASE has: a regression. Without a BASE nothing can be told."""
        return Finding(case.id, "presence", "regression" if side is self.head else "inconclusive", kind="presence", evidence=(f"{side.name}: {refusal.reason}",))

    def preparation(self, side: Revision, case: Case, repository: Path | None) -> Preparation:
        """The reference outputs of one side and group, made once, and what files of the repository it loaded. Raises Refusal, Misuse."""
        key = (side.name, case.group)
        if key not in self.preparations:
            made = self.preparations[key] = Preparation(side.reference(case.workload), self.folder / side.name / case.group, self.plan, self.servers, side.origin)
            made.refer(case, False, self.report, lambda text: None)
            if repository is not None and side.origin.folder is not None:
                made.oracle.referee.go()
                inside, outside = made.oracle.referee.ask("loaded", self.plan.timeout_s, repository=str(repository), worktree=str(side.origin.folder))
                made.oracle.referee.stop()
                if outside:
                    raise Misuse(f"{side.name}: {', '.join(outside[:3])} came from the working copy, not from the worktree of {side.sha[:12]}; import it as a part of its package")
                self.loaded[side.name] |= inside
        return self.preparations[key]

    def refuse_the_same_code(self, repository: Path | None) -> None:
        """An A/A race that calls itself A/B would always pass."""
        if repository is None or not self.duels or self.base.sha == self.head.sha:
            return
        if self.loaded["base"] == self.loaded["head"]:
            files = f"the {len(self.loaded['base'])} files that the cases load are the same" if self.loaded["base"] else "the cases load no file of this repository"
            raise Misuse(f"{self.base.sha[:12]} and {self.head.sha[:12] or 'the working copy'} differ, but {files}: there is nothing to compare; choose other cases")

    def judge(self, duels: Sequence[Duel]) -> None:
        """All cases together: those that alarm share alpha (Holm), whatever look they are at."""
        judged = [duel for duel in duels if duel.alive and duel.blocks >= min(LOOKS)]
        alone = compare.level(self.policy.alpha)[0]
        levels = [compare.level(self.policy.alpha / (rank + 1))[0] for rank in range(len(judged))]
        first = [compare.lockstep(duel.values(), duel.tolerance, alone, alone) for duel in judged]
        for duel, level in zip(judged, compare.holm([found.p_worse for found in first], levels), strict=True):
            if duel.open:
                duel.found = compare.lockstep(duel.values(), duel.tolerance, level, alone)
                duel.open = duel.found.verdict == "inconclusive"
                self.report(f"{duel.case.id}: {duel.blocks} blocks, {duel.found.ratio - 1:+.1%} [{duel.found.low - 1:+.1%}, {duel.found.high - 1:+.1%}], {duel.found.verdict}")
        for duel in duels:
            duel.open = duel.open and duel.alive

    def confirm(self, deadline: float) -> None:
        """A regression must be one again on blocks that it has not seen."""
        each, looks = compare.level(self.policy.alpha)
        for duel in self.duels:
            if duel.found is None or duel.found.verdict != "regression":
                continue
            seen, again = duel.blocks, None
            for look in looks:
                self.report(f"{duel.case.id}: confirming on fresh blocks")
                duel.up_to(seen + look, deadline)
                if duel.blocks - seen < min(looks):
                    break
                again = compare.lockstep(duel.values(seen), duel.tolerance, each, each)
                if again.verdict != "inconclusive":
                    break
            if again is not None and again.verdict == "regression":
                duel.notes.append(f"confirmed on {duel.blocks - seen} fresh blocks: {again.ratio - 1:+.1%}")
            else:
                said = f"{again.ratio - 1:+.1%} on {duel.blocks - seen} fresh blocks" if again else "no time for fresh blocks"
                duel.notes.append(f"a regression that was not confirmed: {said}")
                duel.found = msgspec.structs.replace(duel.found, verdict="inconclusive")

    def against_itself(self, aa: Path) -> None:
        """BASE against BASE for a rotating share of the cases, at tolerance 0; the outcome goes to the ledger."""
        commit = self.head.sha
        each = compare.level(self.policy.alpha)[0]
        for duel in [duel for duel in self.duels if ledger.chosen(duel.case.id, commit)]:
            made = self.preparations["base", duel.case.group]
            lanes = [made.build(duel.case) for _ in range(2)]
            twin = Duel(duel.case, Race(lanes, self.plan, self.servers, lambda text: None, lambda: None), 0.0)
            self.report(f"{duel.case.id}: base against itself")
            twin.race.check()
            for look in LOOKS:
                twin.up_to(look, time.monotonic() + self.plan.budget_s)
                if not twin.alive:
                    break
                twin.found = compare.lockstep(twin.values(), 0.0, each, each)
                if twin.found.verdict != "inconclusive":
                    break
            twin.race.end()
            if twin.found is not None:
                ledger.add(aa, ledger.Entry(duel.case.id, commit, twin.blocks, twin.found.ratio, twin.found.verdict == "regression"))

    def results(self) -> tuple[list[Result], list[Result]]:
        """Of BASE and of HEAD, as hotlap run would write them."""
        made: tuple[list[Result], list[Result]] = ([], [])
        for duel in self.duels:
            for lane, environment, into in zip(duel.sides, self.environments, made, strict=True):
                into.append(answer(lane, duel.sides[0], f"ab/{duel.case.group}", self.plan, environment.key, f"{duel.blocks} blocks", False))
        return made

    def conclude(self, aa: Path) -> Verdict:
        """Structure, presence, limits and memory as hotlap gate judges them; latency by the blocks that both sides shared."""
        keyed = {environment.key: environment for environment in self.environments}
        base, head = (Side(self.folder, {one.case: one for one in sides.known(results, keyed)}) for results in self.results())
        rest = gate.judge(base, head, self.policy, without=("latency",))
        findings = [*self.findings, *rest.findings]
        moved = [self.finding(duel, base.cases[duel.case.id], head.cases[duel.case.id]) for duel in self.duels if duel.found is not None]
        undecided = [duel for duel in self.duels if duel.alive and duel.found is None]
        moved += [Finding(duel.case.id, "latency", "inconclusive", evidence=(f"{duel.blocks} blocks, {min(LOOKS)} are needed; raise --budget",)) for duel in undecided]
        reasons = [*self.reasons, *(reason for reason in rest.reasons if reason != gate.NOTHING or not moved)]
        found = gate.conclude([*findings, *gate.causes(moved, findings)], reasons, self.policy, "ab")
        if why := ledger.distrusted(ledger.read(aa), self.policy.alpha):
            return msgspec.structs.replace(found, verdict="inconclusive", reasons=(why, *found.reasons))
        return found

    def finding(self, duel: Duel, base: Known, head: Known) -> Finding:
        found = duel.found
        assert found is not None
        said = [f"{int(found.n)} blocks", *duel.notes]
        if found.verdict == "inconclusive":
            said.append(f"could pass from a tolerance of {found.least_tolerance:.1%} on")
        a, b = (side.metrics["latency"].centre if "latency" in side.metrics else None for side in (base, head))
        return Finding(
            case=duel.case.id, metric="latency", verdict=found.verdict, base=a, head=b, ratio=found.ratio, low=found.low, high=found.high,
            tolerance=duel.tolerance, detectable=found.detectable, unit="s", evidence=tuple(said), place=head.place,
        )  # fmt: skip

    def close(self) -> None:
        for duel in self.duels:
            duel.race.end()
        for made in self.preparations.values():
            made.close()
        self.servers.close()


def write_results(folder: Path, comparison: Comparison) -> None:
    """base.json and head.json, which hotlap report and hotlap gate read; none if nothing was measured."""
    if not any(duel.blocks for duel in comparison.duels):
        return
    for name, environment, results in zip(("base", "head"), comparison.environments, comparison.results(), strict=True):
        content = encode(Results(f"ab/{name}", "hotlap ab", {environment.key: environment}, tuple(one.case for one in results), results=tuple(results)))
        write(folder / f"{name}.json", content)
