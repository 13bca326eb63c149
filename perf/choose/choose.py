"""The path of a choice, top to bottom: rivals and candidates -> build while the budget has room ->
knock-out race -> the best that meets the bounds -> a second race on fresh blocks -> answer.

The winner of the first race was the best of many looks, so that race flatters it; only the second
one is quoted. Nothing is built while anything is timed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from ..lookup.cases import LIBRARY_DEFAULTS
from ..measure import builds
from ..measure.builds import Builds
from ..measure.journal import Journal, Progress
from ..measure.look import looked
from ..measure.measure import sorted_out
from ..measure.prepare import Preparation, worker_environment
from ..measure.rundir import RunFolder
from ..race import leavings
from ..race.entrant import Entrant
from ..race.race import Race
from ..race.servers import Servers
from ..stats import estimates
from ..terms import files
from ..terms.case import PRECISIONS, Case, Plan
from ..terms.environment import Environment
from ..terms.reasons import Reason, Refusal
from ..terms.result import Result
from ..terms.work import Subject
from .candidates import expected_s
from .knockout import Knockout
from .pipeline import Pipelined, raced
from .wishes import Wish

# Shares of the budget: of what comes before the first race, and of that race.
BUILDING, SEARCHING = 0.45, 0.25
# Of the rest, the second race has at least this share.
LEAST_CONFIRMING = 0.2
# Share of the race of the user's function, where there is one.
PIPELINING = 0.15
# Ways that a first look shows, and the least budget that has room for one, s.
FIRST = 3
WORTH_A_LOOK_S = 90.0
# Looks of the two races. Three blocks are the fewest that give an interval.
SEARCH_LOOKS = (3, 5, 8, 12, 18, 26)
CONFIRM_LOOKS = (6, 9, 14, 20, 30)
# Blocks of the second whose workers import everything themselves; later ones may be forked.
CONFIRM_FRESH = 2
# Blocks that the second has room for, by what those of the first took, and blocks that are raced
# whatever the budget: three are the fewest with an interval, and without one nothing was confirmed.
# Those of the first were mostly forked, so they say too little of workers that import everything.
ROOM_FOR_BLOCKS, CONFIRM_LEAST = 4, 3
# The folder of the store, beside the choices; seconds that taking from it needs.
BUILT, TAKEN_S = "built", 1.0
# What ended a race that Ctrl-C ended.
STOPPED = "stopped"
# Ways that are as fast, on the ratio's whole interval: the simpler one is chosen.
AS_FAST = 0.02
# Precisions that keep a model's answers.
EXACT = ("fp32",)


@dataclass(frozen=True)
class Choice:
    """What was found out. `chosen` is None where nothing that can be shipped meets the bounds."""

    wish: Wish
    subject: Subject
    # Results of the first race, of all that was to be tried, the baseline first.
    search: list[Result]
    # Results of the second, the baseline first; empty where there was nothing to confirm.
    confirm: list[Result]
    chosen: Result | None
    runner_up: Result | None
    # The fastest of the libraries by default.
    best_default: Result | None
    # The user's function with the baseline's model and the chosen one, where it was asked for.
    pipelined: Pipelined | None = None
    # Why the chosen one and not one that was as fast; empty where it was the fastest by itself.
    why: str = ""


def choose(
    cases: Sequence[Case],
    wish: Wish,
    folder: RunFolder,
    again: RunFolder,
    plan: Plan,
    environment: str,
    progress: Progress,
    asked: bool,
    pipeline: str = "",
    against_all: bool = False,
) -> Choice:
    """Returns the choice among cases (candidates.ways), which are built in this order; the first is
    the baseline. folder, again: of the two races. plan.budget_s is that of all of it. asked: the
    user named the precisions. pipeline: the user's function around the model, if there is one.
    against_all: every library by default is built, and raced again with the chosen one.

    Ctrl-C ends the race that runs; the choice is then of what is known. Raises Refusal where the
    model itself cannot be measured.
    """
    began = time.monotonic()
    leavings.clear(progress.line)
    servers = Servers(folder.folder, plan.timeout_s, progress.line, plan.box)
    journal = Journal(cases[0].group, cases, folder, searching(plan), environment, progress)
    files.clear(journal.folder, below=folder.folder)
    preparation = Preparation(journal.reference, journal.folder, plan, servers)
    try:
        willing, _ = sorted_out(journal, prove=False)
        preparation.refer(willing, True, progress.line, journal.tell)
        answerable(wish, preparation.subject)
        here = folder.results.environment[environment]
        preparation.builds = earlier(preparation, wish, here, plan, progress)
        settle_refused(journal, preparation, asked)
        until = began + BUILDING * plan.budget_s
        wanted = [case for case in cases if against_all and case.options == LIBRARY_DEFAULTS]
        build(journal, preparation, until, journal.open()[:FIRST], wanted)
        if plan.budget_s >= WORTH_A_LOOK_S and len(journal.entrants) == FIRST:
            progress.looked(journal.group, looked(journal, servers))
        build(journal, preparation, until, journal.open(), wanted)
        race = Knockout(journal.entrants, journal.plan, servers, journal.tell, journal.record)
        stopped = interrupted(race)
        journal.stopped_by = race.stopped_by
        journal.close()
        search = [journal.settled[case] for case in cases]
        chosen, runner_up, why = best(search, wish)
        default = best_of(defaults(search), wish)
        confirm: list[Result] = []
        pipelined = None
        if chosen is not None and not stopped:
            timed = [result for result in defaults(search) if "latency" in result.metrics]
            beside = timed if against_all else [default]
            members = [search[0], *beside, chosen, runner_up]
            confirm = raced_again(
                [result.case for result in members if result is not None],
                chosen.case,
                journal,
                again,
                confirming(plan, began, PIPELINING if pipeline else 0.0),
                servers,
                environment,
            )
            if pipeline and confirm[0].stopped_by != STOPPED:
                pipelined = around(pipeline, chosen, journal, confirm, plan, servers)
    finally:
        preparation.close()
        servers.close()
    return Choice(wish, preparation.subject, search, confirm, chosen, runner_up, default, pipelined, why)


def interrupted(race: Race) -> bool:
    """Runs a race, and returns whether Ctrl-C ended it after its first block."""
    try:
        race.run()
    except KeyboardInterrupt:
        if not any(entrant.seen.timed for entrant in race.entrants):
            raise
        race.stopped_by = STOPPED
        return True
    return False


def searching(plan: Plan) -> Plan:
    return msgspec.structs.replace(plan, budget_s=SEARCHING * plan.budget_s, looks=SEARCH_LOOKS, rounds=15)


def around(
    pipeline: str, chosen: Result, journal: Journal, confirm: Sequence[Result], plan: Plan, servers: Servers
) -> Pipelined | None:
    """Returns what the user's function gains by the chosen model; None where it fails, and says
    so.
    """
    entrants = {entrant.case: afresh(entrant) for entrant in journal.entrants}
    timed = {each.case: each.metrics["latency"].values for each in confirm if "latency" in each.metrics}
    baseline = confirm[0]
    if baseline.case not in timed or chosen.case not in timed:
        journal.progress.line(f"{pipeline} is not timed: the model itself has no time to compare")
        return None
    gain = estimates.ratio(timed[chosen.case], timed[baseline.case]).centre
    plan = msgspec.structs.replace(plan, budget_s=PIPELINING * plan.budget_s)
    members = entrants[baseline.case], entrants[chosen.case]
    try:
        return raced(pipeline, *members, gain, plan, servers, journal.tell)
    except Refusal as refusal:
        journal.progress.line(f"not timed: {refusal.reason}")
        return None


def confirming(plan: Plan, began: float, reserved: float) -> Plan:
    """Returns the plan of the second race: what is left of the budget, or its least share.

    reserved: the share of what comes after it.
    """
    left_s = (1 - reserved) * plan.budget_s - (time.monotonic() - began)
    budget_s = max(LEAST_CONFIRMING * plan.budget_s, left_s)
    return msgspec.structs.replace(plan, budget_s=budget_s, looks=CONFIRM_LOOKS, fresh_blocks=CONFIRM_FRESH)


def answerable(wish: Wish, subject: Subject) -> None:
    """Raises Refusal(invalid_input) where a bound is on what nothing will measure."""
    if subject.task is None and any(bound.quantity.name == "drop" for bound in wish.bounds):
        raise Refusal(
            "invalid_input",
            "--subject-to drop needs a task metric, and the workload has no Evaluation (docs/own-model.md);"
            " deviation<=1 bounds how far outputs are from fp64",
        )


def settle_refused(journal: Journal, preparation: Preparation, asked: bool) -> None:
    """Settles the precisions in which the model does not run, and where nothing says what they cost
    and nobody asked for them, those that change its answers.
    """
    for precision, reason in preparation.refused.items():
        journal.settle([case for case in journal.open() if case.precision == precision], reason)
    coarse = [case for case in journal.open() if case.precision not in EXACT]
    if coarse and preparation.subject.task is None and not asked:
        detail = (
            "it changes answers, and no evaluation says what that costs: give the workload an Evaluation"
            " (docs/own-model.md), or ask with --precisions"
        )
        journal.settle(coarse, Reason("not_tried", detail))


def earlier(
    preparation: Preparation, wish: Wish, here: Environment, plan: Plan, progress: Progress
) -> Builds | None:
    """Returns what builds of this workload have left; None where the time of a build is asked for,
    or the workload has no fingerprint, which is said.
    """
    if "cold start" in wish.names():
        return None
    store = files.runs_folder() / "choose" / BUILT
    builds.pruned(store)
    try:
        fingerprint = preparation.fingerprint()
    except Refusal as refusal:
        progress.line(f"builds are not kept: {refusal.reason}")
        return None
    return Builds(store, builds.key_of(fingerprint, preparation.oracle.folder, here), plan.threads)


def build(
    journal: Journal, preparation: Preparation, until: float, cases: Sequence[Case], wanted: Sequence[Case]
) -> None:
    """Builds in order while there is time, but first what was built before; what would not be done
    in time is settled. The baseline, one candidate and what is wanted are built in any case.
    """
    slowness, remaining = 1.0, list(cases)

    def known(case: Case) -> bool:
        return preparation.builds is not None and preparation.builds.holds(case)

    while remaining:
        case = next(filter(known, remaining), remaining[0])
        remaining.remove(case)
        before = known(case)
        left_s, needs_s = until - time.monotonic(), TAKEN_S if before else slowness * expected_s(case)
        by_default = case.options == LIBRARY_DEFAULTS
        needed = case in (journal.cases[0], *wanted) or not (by_default or has_candidate(journal))
        if needs_s > left_s and not needed:
            left = f"and {max(0.0, left_s):.0f} s were left; raise --budget"
            reason = Reason("not_tried", f"it takes about {needs_s:.0f} s to build, {left}")
            journal.settle([case], reason)
            continue
        journal.tell(f"{'taking' if before else 'building'} {case.label}")
        start = time.monotonic()
        try:
            journal.entrants.append(preparation.build(case))
        except Refusal as refusal:
            journal.settle([case], refusal.reason)
        # a machine that builds slowly goes on to
        if not before:
            slowness = max(slowness, min(4.0, (time.monotonic() - start) / expected_s(case)))


def has_candidate(journal: Journal) -> bool:
    """Returns whether a candidate was built."""
    return any(entrant.case.options != LIBRARY_DEFAULTS for entrant in journal.entrants)


def defaults(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if result.case.options == LIBRARY_DEFAULTS]


def shippable(result: Result) -> bool:
    """Returns whether a result is right, has a time, and is a folder that runs by itself."""
    own = result.case.options != LIBRARY_DEFAULTS
    return result.status in ("ok", "noisy") and "latency" in result.metrics and own and bool(result.artefact)


def best(search: Sequence[Result], wish: Wish) -> tuple[Result | None, Result | None, str]:
    """Returns the best that can be shipped and meets every bound, the runner-up, and why that one
    where another is as fast.
    """
    able_to = [result for result in search if shippable(result) and meets(result, wish)]
    if not able_to:
        return None, None, ""
    first = best_of(able_to, wish)
    assert first is not None
    alike = [result for result in able_to if as_good(result, first, wish)]
    chosen = min(alike, key=simplicity)
    rest = best_of([result for result in able_to if result is not chosen], wish)
    if chosen is first:
        return chosen, rest, ""
    return chosen, rest, f"{first.case.label} is as good within {AS_FAST:.0%}; {chosen.case.label} is simpler"


def meets(result: Result, wish: Wish) -> bool:
    """Returns whether nothing that was measured so far breaks a bound; the second race decides what
    is not known yet.
    """
    return all(bound.met(result) is not False for bound in wish.bounds)


def best_of(results: Sequence[Result], wish: Wish) -> Result | None:
    sign = 1 if wish.goal.better == "lower" else -1
    timed = [(shown.centre, result) for result in results if (shown := wish.goal.of(result)) is not None]
    return min(timed, key=lambda pair: sign * pair[0])[1] if timed else None


def as_good(result: Result, first: Result, wish: Wish) -> bool:
    """Returns whether a result reaches the goal as well as the first, within AS_FAST."""
    if result is first:
        return True
    ours, theirs = wish.goal.of(result), wish.goal.of(first)
    if ours is None or theirs is None:
        return False
    if wish.goal.name == "latency":
        ratio = estimates.ratio(first.metrics["latency"].values, result.metrics["latency"].values)
        return ratio.centre <= 1 + AS_FAST
    worse = ours.centre / theirs.centre if wish.goal.better == "lower" else theirs.centre / ours.centre
    return worse <= 1 + AS_FAST


def simplicity(result: Result) -> tuple[object, ...]:
    """Returns an order: exact precision, no torch at run time, few options, a small folder."""
    case = result.case
    size = result.placement.counters.get("artefact_bytes", 0) if result.placement is not None else 0
    return PRECISIONS.index(case.precision), case.backend in ("compile", "eager"), len(case.options), size


def raced_again(
    cases: Sequence[Case],
    chosen: Case,
    search: Journal,
    again: RunFolder,
    plan: Plan,
    servers: Servers,
    environment: str,
) -> list[Result]:
    """Races the entrants of these cases on fresh blocks, and the chosen one's file without its
    launcher beside them. Returns their results.
    """
    entrants = {entrant.case: entrant for entrant in search.entrants}
    bare = without_launcher(entrants[chosen])
    members = [entrants[case] for case in dict.fromkeys(cases) if case in entrants]
    if bare.case not in entrants:
        members.append(bare)
    blocks_s = ROOM_FOR_BLOCKS * sum(block_s(entrant) for entrant in members)
    plan = msgspec.structs.replace(plan, budget_s=max(plan.budget_s, blocks_s))
    order = [entrant.case for entrant in members]
    journal = Journal(search.group, order, again, plan, environment, search.progress)
    journal.entrants = [afresh(entrant) for entrant in members]
    race = Race(journal.entrants, journal.plan, servers, journal.tell, journal.record, least=CONFIRM_LEAST)
    interrupted(race)
    journal.stopped_by = race.stopped_by
    journal.close()
    return [journal.settled[entrant.case] for entrant in journal.entrants]


def plainly(case: Case) -> Case:
    """Returns the case that runs the same file without what the launcher sets."""
    return replace(case, options=tuple({**dict(case.options), **dict(LIBRARY_DEFAULTS)}.items()))


def without_launcher(entrant: Entrant) -> Entrant:
    """Returns an entrant of the same build, in the environment of a program that only loads it."""
    case = plainly(entrant.case)
    return replace(
        entrant,
        case=case,
        environment=worker_environment(case, 0),
        outputs=entrant.outputs.with_name(f"{entrant.outputs.name}-plain"),
        log=entrant.log.with_name(f"{entrant.log.name}-plain"),
        seen=msgspec.structs.replace(entrant.seen, case=case),
    )


def block_s(entrant: Entrant) -> float:
    """Returns the seconds that a block of the search took of an entrant."""
    return estimates.fmean([block.spent_s for block in entrant.seen.timed] or [0.0])


def afresh(entrant: Entrant) -> Entrant:
    """Returns an entrant of the same build that nothing is known of yet."""
    return replace(
        entrant,
        seen=msgspec.structs.replace(entrant.seen, blocks=[]),
        log=entrant.log.with_name(f"{entrant.log.name}-again"),
        doubts=[],
        strays=set(),
        weighed_s=[],
        refusal=None,
        let_go="",
        worker=None,
    )
