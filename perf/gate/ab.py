"""HEAD against BASE in one job: both sides of each case in the same blocks, until the gate's tests
have decided (docs/statistics.md).

what both sides load and answer -> build -> check -> blocks up to each look -> judge all cases
together -> confirm regressions on fresh blocks -> profile them -> verdict
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from ..lookup import plugins
from ..machine import survey
from ..measure.answer import Setting, answer
from ..measure.prepare import Preparation, own_work
from ..race import leavings
from ..race.entrant import Entrant
from ..race.messages import TraceSource
from ..race.race import Race
from ..race.servers import Servers
from ..readers import hotlap
from ..readers.side import Known, Side
from ..reports import formats
from ..stats import compare
from ..stats.compare import LATENCY_SHARE, LOOKS, Judgement, Outcome
from ..terms.case import Case, Plan
from ..terms.environment import Environment
from ..terms.files import clear, runs_folder, write
from ..terms.reasons import Misuse, Refusal
from ..terms.result import Result, Results, encode, now
from ..terms.verdict import Finding, Verdict
from . import answers, judge, ledger, metrics
from .behind import behind
from .duel import Duel
from .policy import Policy
from .revisions import SAME_CODE, UNCHANGED, Revision, installed_differently, of_side, readable


class ABRun:
    """One run of hotlap ab: all cases of two revisions.

    `verdict` refers, builds, races and judges them; `results` are what was measured of either side.
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
        # Cases whose answers are known of both sides.
        self.referred: list[Case] = []
        self.duels: list[Duel] = []
        self.reasons: list[str] = (
            [installed_differently(base, head)] if base.installed and head.installed else []
        )
        self.findings: list[Finding] = []
        self.memory: dict[str, tuple[bool, str]] = {}
        self.started = now()

    def verdict(self, cases: Sequence[Case], repository: Path | None, aa: Path) -> Verdict:
        """Refers, builds, checks, races and judges the cases, and ends all workers.

        repository: the git repository of both sides, None where they are no revisions. aa: the
        ledger of races of the same code. Raises Misuse.
        """
        leavings.clear(self.report)
        try:
            for case in cases:
                self.refer(case, repository)
            if why := self.unchanged(repository):
                return judge.conclude(self.findings, [why, *self.reasons], self.policy, "ab")
            for case in self.referred:
                self.build(case)
            for duel in self.duels:
                self.report(f"{duel.case.id}: checking both sides")
                duel.race.check()
            self.decide(time.monotonic() + self.plan.budget_s)
            deadline = time.monotonic() + self.plan.budget_s
            self.confirm(deadline)
            self.confirm_memory(deadline)
            self.explain()
            self.against_itself(aa)
            return self.conclude(aa)
        finally:
            self.close()

    def decide(self, deadline: float) -> None:
        """Races all cases from look to look until each is decided by sides that were steady, or the
        deadline has passed.
        """
        for look in LOOKS:
            for duel in self.duels:
                if duel.open:
                    duel.up_to(look, deadline)
            self.judge(look)
            if not any(duel.open for duel in self.duels) or time.monotonic() > deadline:
                return

    def refer(self, case: Case, repository: Path | None) -> None:
        """Makes the reference outputs of both sides and compares them, or notes the finding that
        one of them has none.

        Raises Misuse for what neither side can run.
        """
        backend = plugins.backend(case.backend)
        reason = backend.available(case.target) or backend.supports(case)
        if own_work(case) or reason is not None:
            raise Misuse(
                f"{case.id}: {reason or 'does no work of the model, so there is nothing to compare'}"
            )
        for side in (self.base, self.head):
            self.report(f"{case.id}: the answers of {side.name}")
            try:
                self.preparation(side, case, repository)
            except Refusal as refusal:
                self.lost(side, case, refusal)
                return
        self.findings.append(self.answers(case))
        self.referred.append(case)

    def build(self, case: Case) -> None:
        """Builds both entrants of a case, or notes the finding that one could not be built."""
        entrants: list[Entrant] = []
        for side in (self.base, self.head):
            self.report(f"{case.id}: building {side.name}")
            try:
                entrants.append(self.preparations[side.name, case.group, case.precision].build(case))
            except Refusal as refusal:
                self.lost(side, case, refusal)
                return
        race = Race(
            entrants, self.plan, self.servers, lambda text: self.report(f"{case.id}: {text}"), lambda: None
        )
        self.duels.append(Duel(case, race, self.policy.of(case.id).tolerance["latency"]))

    def lost(self, side: Revision, case: Case, refusal: Refusal) -> None:
        """Notes that a side cannot run a case: a regression where HEAD lost what BASE has; without
        a BASE nothing can be told.
        """
        verdict: Outcome = "regression" if side is self.head else "inconclusive"
        evidence = (f"{side.name}: {refusal.reason}",)
        self.findings.append(Finding(case.id, "presence", verdict, kind="presence", evidence=evidence))

    def answers(self, case: Case) -> Finding:
        """Returns whether HEAD's module answers as BASE's does."""
        base, head = (
            self.preparations[side.name, case.group, case.precision] for side in (self.base, self.head)
        )
        return answers.finding(
            case.id,
            case.precision,
            base.oracle.folder,
            head.oracle.folder,
            base.subject.work.terms,
            base.subject.outputs,
            self.policy.of(case.id),
        )

    def preparation(self, side: Revision, case: Case, repository: Path | None) -> Preparation:
        """Returns the preparation of one side, group and precision, with its reference outputs.

        It is made once, and notes what files of the repository the side loads. Raises Refusal,
        Misuse.
        """
        key = (side.name, case.group, case.precision)
        if key not in self.preparations:
            folder = self.folder / side.name / case.group / case.precision
            clear(folder, below=self.folder)
            preparation = Preparation(
                side.reference(case.workload),
                folder,
                self.plan,
                self.servers,
                side.origin,
            )
            try:
                preparation.refer([case], False, self.report, lambda text: None)
                if repository is not None and side.origin.folder is not None:
                    self.note_what_is_loaded(side, preparation, repository)
            except BaseException:
                preparation.close()
                raise
            self.preparations[key] = preparation
        return self.preparations[key]

    def note_what_is_loaded(self, side: Revision, preparation: Preparation, repository: Path) -> None:
        """Notes which files of the repository a side loads, by their code.

        Raises Misuse where they are the working copy's.
        """
        referee = preparation.oracle.referee
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

    def unchanged(self, repository: Path | None) -> str:
        """Returns that nothing measured changed, since both revisions load the same files, give the
        same answers and differ in no file that a model might read; empty where that is not so.

        Raises Misuse where the cases load no file of the repository: nothing in it would ever
        change them.
        """
        same = self.loaded["base"] == self.loaded["head"]
        if repository is None or not self.referred or self.base.sha == self.head.sha or not same:
            return ""
        head = self.head.sha[:12] or "the working copy"
        if not self.loaded["base"]:
            raise Misuse(
                f"{self.base.sha[:12]} and {head} differ, but the cases load no file of this repository:"
                f" {SAME_CODE}; choose other cases"
            )
        differ = any(finding.verdict != "pass" for finding in self.findings)
        if differ or readable(repository, self.base.sha, self.head.sha):
            return ""
        files = f"the {len(self.loaded['base'])} files that the cases load"
        return f"{UNCHANGED}: {files} hold the same code in {self.base.sha[:12]} and {head}"

    def judge(self, look: int) -> None:
        """Judges all cases together at this look: they share the chance of a false alarm (Holm),
        whatever look each is at.
        """
        alpha = LATENCY_SHARE * self.policy.alpha
        fine = compare.level(alpha)
        for duel in self.duels:
            if duel.open and duel.alive and duel.blocks == look:
                duel.judgement = duel.judged(fine, fine)
        judged = [duel for duel in self.duels if duel.judgement is not None]
        levels = [compare.level(alpha / (rank + 1)) for rank in range(len(judged))]
        p_values = [duel.judgement.p_worse for duel in judged if duel.judgement]
        each = compare.holm(p_values, [level for level, _ in levels])
        for duel, level in zip(judged, each, strict=True):
            if duel.open and duel.alive and duel.blocks == look:
                looks = next((looks for solved, looks in levels if solved <= level), ())
                now = duel.judgement = duel.judged((level, looks), fine)
                duel.open = now.verdict == "inconclusive" or not duel.steady
                self.report(
                    f"{duel.case.id}: {look} blocks, {now.ratio - 1:+.1%} [{now.low - 1:+.1%},"
                    f" {now.high - 1:+.1%}], {now.verdict}"
                )
        for duel in self.duels:
            duel.open = duel.open and duel.alive

    def confirm(self, deadline: float) -> None:
        """Races the regressions on: one must be a regression again on blocks that it has not seen.

        As many as the first look needs are raced whatever the deadline: without them a slow machine
        would never find a regression, however large.
        """
        level = compare.level(self.policy.alpha)
        for duel in self.duels:
            if duel.judgement is None or duel.judgement.verdict != "regression":
                continue
            seen, again = duel.blocks, None
            for look in level[1]:
                self.report(f"{duel.case.id}: confirming on fresh blocks")
                duel.up_to(seen + look, deadline, least=seen + min(level[1]))
                if duel.blocks < seen + look:
                    break
                again = duel.judged(level, level, seen)
                if again.verdict != "inconclusive" and duel.steady:
                    break
            if again is not None and again.verdict == "regression":
                duel.notes.append(f"confirmed on {int(again.n)} fresh blocks: {again.ratio - 1:+.1%}")
            else:
                why = "no time for fresh blocks"
                if again is not None:
                    why = f"{again.ratio - 1:+.1%} on {int(again.n)} fresh blocks"
                duel.notes.append(f"a regression that was not confirmed: {why}")
                duel.judgement = msgspec.structs.replace(duel.judgement, verdict="inconclusive")

    def explain(self) -> None:
        """Notes what the time of each confirmed regression went to."""
        for duel in self.duels:
            if duel.judgement is None or duel.judgement.verdict != "regression" or not duel.alive:
                continue
            self.report(f"{duel.case.id}: profiling both sides")
            ratio = duel.judgement.ratio
            if text := behind(duel, ratio, self.plan, self.servers, self.environments, self.folder):
                duel.notes.append(text)

    def confirm_memory(self, deadline: float) -> None:
        """Races on where memory grew, in workers that import everything themselves: it must have
        grown in more of them as well.
        """
        grown = [
            finding.case
            for finding in self.rest().findings
            if finding.metric == "memory" and finding.verdict == "regression" and finding.kind == "time"
        ]
        for duel in [duel for duel in self.duels if duel.case.id in grown]:
            self.report(f"{duel.case.id}: confirming memory in fresh workers")
            seen = duel.blocks
            count = seen + self.plan.fresh_blocks
            duel.up_to(count, deadline, fresh=True, least=count)
            findings = self.rest([duel], seen).findings
            memory = (
                finding for finding in findings if finding.metric == "memory" and finding.kind == "time"
            )
            again = next(memory, None)
            moved = f" ({formats.percent(again.ratio)})" if again is not None and again.ratio else ""
            confirmed = again is not None and again.verdict == "regression"
            words = "confirmed" if confirmed else "not confirmed"
            text = f"{words} in {duel.blocks - seen} more fresh workers a side{moved}"
            self.memory[duel.case.id] = (confirmed, text)

    def against_itself(self, aa: Path) -> None:
        """Races BASE against BASE for a rotating share of the cases, at tolerance 0, and adds the
        outcomes to the ledger `aa`. A failure here takes no verdict away.
        """
        for duel in [duel for duel in self.duels if ledger.chosen(duel.case.id, self.head.sha)]:
            self.report(f"{duel.case.id}: base against itself")
            race: Race | None = None
            try:
                preparation = self.preparations["base", duel.case.group, duel.case.precision]
                entrants = [preparation.build(duel.case) for _ in range(2)]
                race = Race(entrants, self.plan, self.servers, lambda text: None, lambda: None)
                race.check()
                outcome = self.judged_alone(Duel(duel.case, race, 0.0))
                if outcome is not None:
                    alarm = outcome.verdict == "regression"
                    entry = ledger.SelfRace(duel.case.id, self.head.sha, int(outcome.n), outcome.ratio, alarm)
                    ledger.add(aa, entry)
            except (Refusal, OSError) as error:
                self.reasons.append(f"A/A of {duel.case.id} was not finished: {error}")
            finally:
                if race is not None:
                    race.end()

    def judged_alone(self, duel: Duel) -> Judgement | None:
        """Races one duel until it is decided; None where the budget ends before its first look."""
        level = compare.level(self.policy.alpha)
        deadline = time.monotonic() + self.plan.budget_s
        for look in level[1]:
            duel.up_to(look, deadline)
            if duel.blocks < look or not duel.alive:
                break
            duel.judgement = duel.judged(level, level)
            if duel.judgement.verdict != "inconclusive":
                break
        return duel.judgement

    def results(
        self, duels: Sequence[Duel] | None = None, first: int = 0
    ) -> tuple[list[Result], list[Result]]:
        """Returns the results of BASE and of HEAD as hotlap run would write them, of the blocks
        from `first` on. duels: default all.
        """
        both: tuple[list[Result], list[Result]] = ([], [])
        for duel in self.duels if duels is None else duels:
            entrants = [
                replace(
                    entrant, seen=msgspec.structs.replace(entrant.seen, blocks=entrant.seen.blocks[first:])
                )
                for entrant in duel.sides
            ]
            for entrant, environment, results in zip(entrants, self.environments, both, strict=True):
                setting = Setting(f"ab/{duel.case.group}", self.plan, environment.key)
                results.append(answer(setting, entrant, entrants[0], f"{duel.blocks} blocks", False))
        return both

    def both(self, duels: Sequence[Duel] | None = None, first: int = 0) -> tuple[Side, Side]:
        """Returns BASE and HEAD as the gate takes them; arguments as for `results`."""
        keyed = {environment.key: environment for environment in self.environments}
        base, head = (
            Side(self.folder, {known.case: known for known in hotlap.known(results, keyed)})
            for results in self.results(duels, first)
        )
        return base, head

    def rest(self, duels: Sequence[Duel] | None = None, first: int = 0) -> Verdict:
        """Judges structure, presence, limits and all metrics but latency, as hotlap gate does."""
        return judge.judge(
            *self.both(duels, first),
            self.policy,
            (1 - LATENCY_SHARE) * self.policy.alpha,
            without=("latency",),
            one_job=True,
        )

    def conclude(self, aa: Path) -> Verdict:
        """Judges the rest, and latency by the blocks that both sides shared. aa: the ledger, which
        may suspend the gate.
        """
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
                    finding,
                    verdict="inconclusive",
                    evidence=(*finding.evidence, "the gate is suspended"),
                )
                for finding in moved
            ]
        findings = [*self.findings, *map(self.with_confirmation, rest.findings)]
        return judge.conclude([*findings, *judge.causes(moved, findings)], reasons, self.policy, "ab")

    def with_confirmation(self, finding: Finding) -> Finding:
        """Returns a finding; of memory, with what fresh workers said of it."""
        if finding.metric != "memory" or finding.kind != "time" or finding.case not in self.memory:
            return finding
        confirmed, text = self.memory[finding.case]
        verdict = finding.verdict if confirmed else "inconclusive"
        return msgspec.structs.replace(finding, verdict=verdict, evidence=(*finding.evidence, text))

    def finding(self, duel: Duel, base: Known, head: Known) -> Finding:
        """Returns what the blocks say of one latency; without a look nothing, and that is said."""
        judgement, evidence = duel.judgement, list(duel.notes)
        dead = [
            f"{entrant.case.backend} of {side.name} ended: {entrant.refusal}"
            for side, entrant in zip((self.base, self.head), duel.sides, strict=True)
            if not entrant.live
        ]
        if judgement is None:
            evidence += dead or [f"{duel.blocks} blocks, {min(LOOKS)} are needed; raise --budget"]
            return Finding(
                duel.case.id,
                "latency",
                "inconclusive",
                tolerance=duel.tolerance,
                unit="s",
                evidence=tuple(evidence),
                place=head.place,
            )
        unsteady = [
            f"{name} was not steady" for name, side in (("BASE", base), ("HEAD", head)) if not side.steady
        ]
        verdict = judgement.verdict if not unsteady and not dead else "inconclusive"
        evidence = [f"{int(judgement.n)} blocks", *evidence, *unsteady, *dead]
        evidence += metrics.could_pass(judgement, duel.tolerance)
        a, b = (
            side.metrics["latency"].centre if "latency" in side.metrics else None for side in (base, head)
        )
        return Finding(
            case=duel.case.id,
            metric="latency",
            verdict=verdict,
            base=a,
            head=b,
            ratio=judgement.ratio,
            low=judgement.low,
            high=judgement.high,
            tolerance=duel.tolerance,
            detectable=judgement.detectable,
            unit="s",
            evidence=tuple(evidence),
            place=head.place,
        )

    def close(self) -> None:
        """Ends all processes of this run."""
        for duel in self.duels:
            duel.race.end()
        for preparation in self.preparations.values():
            preparation.close()
        self.servers.close()


def write_results(folder: Path, run: ABRun) -> None:
    """Writes base.json and head.json, which hotlap report and hotlap gate read; none if nothing was
    measured.
    """
    if not any(duel.blocks for duel in run.duels):
        return
    for name, environment, results in zip(hotlap.AB_RUNS, run.environments, run.results(), strict=True):
        asked = tuple(result.case for result in results)
        content = encode(
            Results(
                name,
                "hotlap ab",
                {environment.key: environment},
                asked,
                results=tuple(results),
                started=run.started,
            )
        )
        write(folder / f"{name.partition('/')[2]}.json", content)


def compared(
    revisions: tuple[Revision, Revision],
    cases: Sequence[Case],
    policy: Policy,
    plan: Plan,
    folder: Path,
    repository: Path | None,
    report: Callable[[str], None],
) -> Verdict:
    """Races BASE and HEAD, writes their results into the folder, also when interrupted, and returns
    the verdict. Raises Misuse.
    """
    run = ABRun(*revisions, policy, plan, folder, survey.collect(plan.threads, "keep"), report)
    try:
        return run.verdict(cases, repository, runs_folder() / "ab" / "aa.jsonl")
    finally:
        write_results(folder, run)
