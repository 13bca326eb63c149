"""HEAD against BASE in one job: both sides of each case in the same blocks, until the gate's tests
have decided (shared/MEASURING.md b).

prepare both sides -> check -> blocks up to each look -> judge all cases together -> confirm
regressions on fresh blocks -> verdict
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from ..lookup import plugins
from ..machine.survey import LIBRARIES
from ..measure.answer import Setting, answer
from ..measure.prepare import Preparation, own_work
from ..race.entrant import Entrant
from ..race.messages import TraceSource
from ..race.race import Race
from ..race.servers import Servers
from ..reports import formats
from ..stats import compare, estimates
from ..stats.compare import LATENCY_SHARE, LOOKS, Judgement, Outcome
from ..terms.case import Case, Plan
from ..terms.environment import Environment
from ..terms.files import write
from ..terms.reasons import Misuse, Refusal
from ..terms.result import Result, Results, encode, now
from ..terms.verdict import Finding, Verdict
from . import judge, ledger, sides
from .policy import Policy
from .revisions import SAME_CODE, Revision
from .sides import Known, Side

# A level for each look, and the looks that it was solved for (compare.level).
Level = tuple[float, tuple[int, ...]]

MOST_NAMED = 12


@dataclass
class Duel:
    """The two sides of one case, and what is known of them so far.

    found: as of the last look that it reached.
    """

    case: Case
    race: Race
    tolerance: float
    order: random.Random = field(default_factory=lambda: random.Random(0))
    blocks: int = 0
    found: Judgement | None = None
    open: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def sides(self) -> tuple[Entrant, Entrant]:
        base, head = self.race.entrants
        return base, head

    @property
    def alive(self) -> bool:
        return all(entrant.live for entrant in self.sides)

    def up_to(self, count: int, deadline: float, fresh: bool = False) -> None:
        """More blocks, up to so many or to the deadline."""
        while (
            self.blocks < count and self.alive and (time.monotonic() < deadline or self.blocks < min(LOOKS))
        ):
            self.race.block(self.blocks, self.race.plan.rounds, self.order, fresh)
            self.blocks += 1

    def values(self, first: int = 0) -> list[float]:
        """Log ratios HEAD / BASE of the blocks from `first` on."""
        base, head = (entrant.latencies() for entrant in self.sides)
        return [math.log(estimates.middle(block)) for block in estimates.paired(base, head)[first:]]

    def judged(self, worse: Level, fine: Level, first: int = 0) -> Judgement:
        """At the look that it stands at; a look that a level was not solved for decides nothing."""
        values = self.values(first)
        found = compare.lockstep(values, self.tolerance, worse[0], fine[0])
        decides = {"regression": worse[1], "pass": fine[1]}.get(found.verdict)
        return (
            found
            if decides is None or len(values) in decides
            else msgspec.structs.replace(found, verdict="inconclusive")
        )


class Comparison:
    """All cases of two revisions.

    `verdict` does it, `results` are what was measured of either side.
    """

    def __init__(
        self,
        base: Revision,
        head: Revision,
        policy: Policy,
        plan: Plan,
        folder: Path,
        environment: Environment,
        report: Callable[[str], None],
    ) -> None:
        self.base = base
        self.head = head
        self.policy = policy
        self.plan = plan
        self.folder = folder
        self.report = report
        self.environments = tuple(of_side(side, environment) for side in (base, head))
        self.servers = Servers(folder, plan.timeout_s, report)
        self.preparations: dict[tuple[str, str, str], Preparation] = {}
        self.loaded: dict[str, dict[str, str]] = {"base": {}, "head": {}}
        self.duels: list[Duel] = []
        self.reasons: list[str] = (
            [installed_differently(base, head)] if base.installed and head.installed else []
        )
        self.findings: list[Finding] = []
        self.memory: dict[str, tuple[bool, str]] = {}
        self.started = now()

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
                self.judge(look)
                if not any(duel.open for duel in self.duels) or time.monotonic() > deadline:
                    break
            deadline = time.monotonic() + self.plan.budget_s
            self.confirm(deadline)
            self.confirm_memory(deadline)
            self.against_itself(aa)
            return self.conclude(aa)
        finally:
            self.close()

    def prepare(self, case: Case, repository: Path | None) -> None:
        """Both entrants of a case, or the finding that one of them could not be made.

        Raises Misuse for what neither side can run.
        """
        backend = plugins.backend(case.backend)
        reason = backend.available(case.target) or backend.supports(case)
        if own_work(case) or reason is not None:
            raise Misuse(
                f"{case.id}: {reason or 'does no work of the model, so there is nothing to compare'}"
            )
        entrants: list[Entrant] = []
        for side in (self.base, self.head):
            self.report(f"{case.id}: building {side.name}")
            try:
                entrants.append(self.preparation(side, case, repository).build(case))
            except Refusal as refusal:
                # HEAD lost what BASE has: a regression. Without a BASE nothing can be told.
                verdict: Outcome = "regression" if side is self.head else "inconclusive"
                self.findings.append(
                    Finding(
                        case.id,
                        "presence",
                        verdict,
                        kind="presence",
                        evidence=(f"{side.name}: {refusal.reason}",),
                    )
                )
                return
        race = Race(
            entrants, self.plan, self.servers, lambda text: self.report(f"{case.id}: {text}"), lambda: None
        )
        self.duels.append(Duel(case, race, self.policy.of(case.id).tolerance["latency"]))

    def preparation(self, side: Revision, case: Case, repository: Path | None) -> Preparation:
        """The reference outputs of one side and group, made once, and what files of the repository
        it loaded. Raises Refusal, Misuse.
        """
        key = (side.name, case.group, case.precision)
        if key not in self.preparations:
            made = Preparation(
                side.reference(case.workload),
                self.folder / side.name / case.group / case.precision,
                self.plan,
                self.servers,
                side.origin,
            )
            try:
                made.refer([case], False, self.report, lambda text: None)
                if repository is not None and side.origin.folder is not None:
                    self.note_what_is_loaded(side, made, repository)
            except BaseException:
                made.close()
                raise
            self.preparations[key] = made
        return self.preparations[key]

    def note_what_is_loaded(self, side: Revision, made: Preparation, repository: Path) -> None:
        """Raises Misuse where a side runs code of the working copy."""
        referee = made.oracle.referee
        assert referee is not None
        referee.go()
        source = referee.ask(TraceSource(str(repository), str(side.origin.folder)), self.plan.timeout_s)
        referee.stop()
        if source.outside:
            raise Misuse(
                f"{side.name}: {', '.join(source.outside[:3])} came from the working copy, not from the"
                f" worktree of {side.sha[:12]}; import it as a part of its package"
            )
        self.loaded[side.name] |= source.inside

    def refuse_the_same_code(self, repository: Path | None) -> None:
        """An A/A race that calls itself A/B would always pass."""
        if repository is None or not self.duels or self.base.sha == self.head.sha:
            return
        if self.loaded["base"] == self.loaded["head"]:
            files = (
                f"the {len(self.loaded['base'])} files that the cases load are the same"
                if self.loaded["base"]
                else "the cases load no file of this repository"
            )
            raise Misuse(
                f"{self.base.sha[:12]} and {self.head.sha[:12] or 'the working copy'} differ, but {files}:"
                f" {SAME_CODE}; choose other cases"
            )

    def judge(self, look: int) -> None:
        """All cases together: they share the chance of a false alarm (Holm), whatever look each is
        at.
        """
        alpha = LATENCY_SHARE * self.policy.alpha
        fine = compare.level(alpha)
        for duel in self.duels:
            if duel.open and duel.alive and duel.blocks == look:
                duel.found = duel.judged(fine, fine)
        judged = [duel for duel in self.duels if duel.found is not None]
        levels = [compare.level(alpha / (rank + 1)) for rank in range(len(judged))]
        each = compare.holm([duel.found.p_worse for duel in judged if duel.found], [one[0] for one in levels])
        for duel, level in zip(judged, each, strict=True):
            if duel.open and duel.alive and duel.blocks == look:
                found = duel.found = duel.judged(
                    (level, next((looks for solved, looks in levels if solved <= level), ())), fine
                )
                duel.open = found.verdict == "inconclusive"
                self.report(
                    f"{duel.case.id}: {look} blocks, {found.ratio - 1:+.1%} [{found.low - 1:+.1%},"
                    f" {found.high - 1:+.1%}], {found.verdict}"
                )
        for duel in self.duels:
            duel.open = duel.open and duel.alive

    def confirm(self, deadline: float) -> None:
        """A regression must be one again on blocks that it has not seen."""
        level = compare.level(self.policy.alpha)
        for duel in self.duels:
            if duel.found is None or duel.found.verdict != "regression":
                continue
            seen, again = duel.blocks, None
            for look in level[1]:
                self.report(f"{duel.case.id}: confirming on fresh blocks")
                duel.up_to(seen + look, deadline)
                if duel.blocks < seen + look:
                    break
                again = duel.judged(level, level, seen)
                if again.verdict != "inconclusive":
                    break
            if again is not None and again.verdict == "regression":
                duel.notes.append(f"confirmed on {int(again.n)} fresh blocks: {again.ratio - 1:+.1%}")
            else:
                said = (
                    f"{again.ratio - 1:+.1%} on {int(again.n)} fresh blocks"
                    if again
                    else "no time for fresh blocks"
                )
                duel.notes.append(f"a regression that was not confirmed: {said}")
                duel.found = msgspec.structs.replace(duel.found, verdict="inconclusive")

    def confirm_memory(self, deadline: float) -> None:
        """Memory comes from workers that import everything themselves; one that grew must have
        grown in others of the kind as well.
        """
        grown = [
            one.case
            for one in self.rest().findings
            if one.metric == "memory" and one.verdict == "regression" and one.kind == "time"
        ]
        for duel in [duel for duel in self.duels if duel.case.id in grown]:
            self.report(f"{duel.case.id}: confirming memory in fresh workers")
            seen = duel.blocks
            duel.up_to(seen + self.plan.fresh_blocks, deadline, fresh=True)
            again = next(
                (
                    one
                    for one in self.rest([duel], seen).findings
                    if one.metric == "memory" and one.kind == "time"
                ),
                None,
            )
            moved = f" ({formats.percent(again.ratio)})" if again is not None and again.ratio else ""
            confirmed = again is not None and again.verdict == "regression"
            self.memory[duel.case.id] = (
                confirmed,
                (
                    f"{'confirmed' if confirmed else 'not confirmed'} in {duel.blocks - seen} more fresh"
                    f" workers a side{moved}"
                ),
            )

    def against_itself(self, aa: Path) -> None:
        """BASE against BASE for a rotating share of the cases, at tolerance 0; the outcome goes to
        the ledger. A failure here takes no verdict away.
        """
        level = compare.level(self.policy.alpha)
        for duel in [duel for duel in self.duels if ledger.chosen(duel.case.id, self.head.sha)]:
            self.report(f"{duel.case.id}: base against itself")
            twin: Duel | None = None
            try:
                made = self.preparations["base", duel.case.group, duel.case.precision]
                race = Race(
                    [made.build(duel.case) for _ in range(2)],
                    self.plan,
                    self.servers,
                    lambda text: None,
                    lambda: None,
                )
                twin = Duel(duel.case, race, 0.0)
                race.check()
                deadline = time.monotonic() + self.plan.budget_s
                for look in level[1]:
                    twin.up_to(look, deadline)
                    if twin.blocks < look or not twin.alive:
                        break
                    twin.found = twin.judged(level, level)
                    if twin.found.verdict != "inconclusive":
                        break
                if twin.found is not None:
                    ledger.add(
                        aa,
                        ledger.Entry(
                            duel.case.id,
                            self.head.sha,
                            int(twin.found.n),
                            twin.found.ratio,
                            twin.found.verdict == "regression",
                        ),
                    )
            except (Refusal, OSError) as error:
                self.reasons.append(f"A/A of {duel.case.id} was not finished: {error}")
            finally:
                if twin is not None:
                    twin.race.end()

    def results(
        self, duels: Sequence[Duel] | None = None, first: int = 0
    ) -> tuple[list[Result], list[Result]]:
        """Of BASE and of HEAD, as hotlap run would write them; of the blocks from `first` on."""
        made: tuple[list[Result], list[Result]] = ([], [])
        for duel in self.duels if duels is None else duels:
            entrants = [
                replace(
                    entrant, seen=msgspec.structs.replace(entrant.seen, blocks=entrant.seen.blocks[first:])
                )
                for entrant in duel.sides
            ]
            for entrant, environment, into in zip(entrants, self.environments, made, strict=True):
                setting = Setting(f"ab/{duel.case.group}", self.plan, environment.key)
                into.append(answer(setting, entrant, entrants[0], f"{duel.blocks} blocks", False))
        return made

    def both(self, duels: Sequence[Duel] | None = None, first: int = 0) -> tuple[Side, Side]:
        keyed = {environment.key: environment for environment in self.environments}
        base, head = (
            Side(self.folder, {one.case: one for one in sides.known(results, keyed)})
            for results in self.results(duels, first)
        )
        return base, head

    def rest(self, duels: Sequence[Duel] | None = None, first: int = 0) -> Verdict:
        """Structure, presence, limits and all metrics but latency, as hotlap gate judges them."""
        return judge.judge(
            *self.both(duels, first),
            self.policy,
            (1 - LATENCY_SHARE) * self.policy.alpha,
            without=("latency",),
            one_job=True,
        )

    def conclude(self, aa: Path) -> Verdict:
        """The rest, and latency by the blocks that both sides shared."""
        (base, head), rest = self.both(), self.rest()
        moved = [
            self.finding(duel, base.cases[duel.case.id], head.cases[duel.case.id]) for duel in self.duels
        ]
        reasons = [
            *self.reasons,
            *(reason for reason in rest.reasons if reason != judge.NOTHING or not moved),
        ]
        if why := ledger.distrusted(ledger.read(aa), self.policy.alpha):
            reasons.insert(0, why)
            moved = [
                msgspec.structs.replace(
                    one, verdict="inconclusive", evidence=(*one.evidence, "the gate is suspended")
                )
                for one in moved
            ]
        findings = [*self.findings, *map(self.with_confirmation, rest.findings)]
        return judge.conclude([*findings, *judge.causes(moved, findings)], reasons, self.policy, "ab")

    def with_confirmation(self, one: Finding) -> Finding:
        if one.metric != "memory" or one.kind != "time" or one.case not in self.memory:
            return one
        confirmed, said = self.memory[one.case]
        return msgspec.structs.replace(
            one, verdict=one.verdict if confirmed else "inconclusive", evidence=(*one.evidence, said)
        )

    def finding(self, duel: Duel, base: Known, head: Known) -> Finding:
        """What the blocks say of one latency; without a look nothing, and that is said."""
        found, said = duel.found, list(duel.notes)
        dead = [
            f"{entrant.case.backend} of {side.name} ended: {entrant.refusal}"
            for side, entrant in zip((self.base, self.head), duel.sides, strict=True)
            if not entrant.live
        ]
        if found is None:
            said += dead or [f"{duel.blocks} blocks, {min(LOOKS)} are needed; raise --budget"]
            return Finding(
                duel.case.id,
                "latency",
                "inconclusive",
                tolerance=duel.tolerance,
                unit="s",
                evidence=tuple(said),
                place=head.place,
            )
        unsteady = [
            f"{side} was not steady" for side, one in (("BASE", base), ("HEAD", head)) if not one.steady
        ]
        verdict = found.verdict if not unsteady and not dead else "inconclusive"
        said = [f"{int(found.n)} blocks", *said, *unsteady, *dead]
        if verdict == "inconclusive":
            said.append(f"could pass from a tolerance of {found.least_tolerance:.1%} on")
        a, b = (
            side.metrics["latency"].centre if "latency" in side.metrics else None for side in (base, head)
        )
        return Finding(
            case=duel.case.id,
            metric="latency",
            verdict=verdict,
            base=a,
            head=b,
            ratio=found.ratio,
            low=found.low,
            high=found.high,
            tolerance=duel.tolerance,
            detectable=found.detectable,
            unit="s",
            evidence=tuple(said),
            place=head.place,
        )

    def close(self) -> None:
        for duel in self.duels:
            duel.race.end()
        for made in self.preparations.values():
            made.close()
        self.servers.close()


def of_side(side: Revision, here: Environment) -> Environment:
    """Where a side runs: here, at its commit; or with its own interpreter and libraries."""
    if not side.installed:
        return msgspec.structs.replace(here, commit=side.sha)
    libraries = {name: side.installed[name] for name in LIBRARIES if name in side.installed}
    return msgspec.structs.replace(
        here,
        python=side.python,
        libraries={
            **libraries,
            **{name: here.libraries[name] for name in ("hotlap",) if name in here.libraries},
        },
    )


def installed_differently(base: Revision, head: Revision) -> str:
    a, b = {"Python": base.python, **base.installed}, {"Python": head.python, **head.installed}
    different = [
        f"{name} {a.get(name, 'none')} -> {b.get(name, 'none')}"
        for name in sorted({**a, **b}, key=str.lower)
        if a.get(name) != b.get(name)
    ]
    more = f" and {len(different) - MOST_NAMED} more" if len(different) > MOST_NAMED else ""
    return "the two environments " + (
        f"differ: {', '.join(different[:MOST_NAMED])}{more}"
        if different
        else "hold the same versions of everything"
    )


def write_results(folder: Path, comparison: Comparison) -> None:
    """base.json and head.json, which hotlap report and hotlap gate read; none if nothing was
    measured.
    """
    if not any(duel.blocks for duel in comparison.duels):
        return
    for name, environment, results in zip(
        ("base", "head"), comparison.environments, comparison.results(), strict=True
    ):
        asked = tuple(one.case for one in results)
        content = encode(
            Results(
                f"ab/{name}",
                "hotlap ab",
                {environment.key: environment},
                asked,
                results=tuple(results),
                started=comparison.started,
            )
        )
        write(folder / f"{name}.json", content)
