"""The main path, top to bottom: cases -> races -> (refer, prove, build, race with check) ->
answers -> results file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from ..lookup import plugins
from ..lookup.cases import races, takes
from ..race import leavings
from ..race.race import Race
from ..race.servers import Servers
from ..terms import files
from ..terms.case import Case, Plan
from ..terms.reasons import Reason, Refusal
from ..terms.result import Result
from . import look
from .answer import proven
from .journal import Journal, Progress
from .locating import locate_all
from .prepare import Preparation, own_work
from .rundir import RunFolder

NO_PACE = Reason(
    "unsupported_target",
    "no other entrant of this race can run here, so there is nothing to keep pace with",
)
UNBUILT = Reason("interrupted", "stopped before it was built; go on with: hotlap run --resume")


def measure(
    cases: Sequence[Case],
    run: RunFolder,
    plan: Plan,
    environment: str,
    progress: Progress,
    train: bool = True,
    prove: bool = True,
    first_look: bool = False,
    locate: bool = False,
) -> list[Result]:
    """Measures every case, race by race; what lacks only its device is proven (prove) or skipped.

    `run` has the results after each block: a Ctrl-C or a crash loses at most one. environment: its
    key in the results file. first_look: of a first race with many entrants (look.py). locate: the
    first wrong node is looked for where outputs were refused.
    """
    results: list[Result] = []
    leavings.clear(progress.line)
    servers = Servers(run.folder, plan.timeout_s, progress.line, plan.box)
    try:
        for group, members in races(cases):
            journal = Journal(group, members, run, for_all(plan, members), environment, progress)
            servers.keep(journal.reference.module)
            measure_race(journal, servers, train, prove, first_look and not results, locate)
            results += journal.results()
            progress.finished(group, journal.results())
    finally:
        servers.close()
    return results


def for_all(plan: Plan, members: Sequence[Case]) -> Plan:
    """Returns the plan of one race, whose budget is for each of its precisions."""
    precisions = {case.precision for case in members}
    return msgspec.structs.replace(plan, budget_s=plan.budget_s * len(precisions))


def measure_race(
    journal: Journal,
    servers: Servers,
    train: bool,
    prove: bool,
    first_look: bool = False,
    locate: bool = False,
) -> None:
    """One race from its cases to their results, which the journal has in the end.

    What cannot take part gets its reason; what lacks only its device is proven without it; the
    others are built, checked and timed.
    """
    willing, absent = sorted_out(journal, prove)
    if not willing and not absent:
        return
    files.clear(journal.folder, below=journal.run.folder)
    workloads = [case for case in willing if not own_work(case)]
    preparation = Preparation(journal.reference, journal.folder, journal.plan, servers)
    try:
        preparation.refer(
            [*workloads, *absent], train, journal.progress.line, journal.tell, here=bool(workloads)
        )
        for precision, reason in preparation.refused.items():
            refused = [case for case in (*workloads, *absent) if case.precision == precision]
            journal.settle(refused, reason)
            willing = paced([case for case in willing if case not in refused], journal)
            absent = {case: why for case, why in absent.items() if case not in refused}
        prove_all(absent, preparation, journal)
        soonest = look.members(willing, journal.plan) if first_look else []
        build_all(soonest, preparation, journal)
        if soonest and [entrant.case for entrant in journal.entrants] == soonest:
            journal.progress.looked(journal.group, look.looked(journal, servers))
        build_all([case for case in willing if case not in soonest], preparation, journal)
        if willing:
            race = Race(journal.entrants, journal.plan, servers, journal.tell, journal.record)
            race.run()
            journal.stopped_by = race.stopped_by
            if locate:
                locate_all(journal, preparation)
    except Refusal as refusal:
        journal.settle(journal.open(), refusal.reason)
    except KeyboardInterrupt:
        journal.settle(journal.open(), UNBUILT)
        journal.record()
        raise
    finally:
        preparation.close()
    if willing:
        journal.close()


def sorted_out(journal: Journal, prove: bool) -> tuple[list[Case], dict[Case, Reason]]:
    """The cases that can run here, and those that lack only their device, with its reason. The
    others are settled.
    """
    willing: list[Case] = []
    absent: dict[Case, Reason] = {}
    for case in journal.cases:
        backend = plugins.backend(case.backend)
        reason = unsuitable(case) or backend.supports(case) or backend.available(case.target)
        if reason is None:
            willing.append(case)
        elif prove and reason.code == "no_device" and hasattr(backend, "verify"):
            absent[case] = reason
        else:
            journal.settle([case], reason)
    return paced(willing, journal), absent


def unsuitable(case: Case) -> Reason | None:
    """Returns why a backend cannot take such a workload; None where it can."""
    if takes(case.backend, case.workload):
        return None
    return Reason(
        "unsupported_op",
        f"{case.workload} is an ONNX file, and {case.backend} runs modules of torch: give"
        " package.module:function",
    )


def paced(cases: list[Case], journal: Journal) -> list[Case]:
    """The cases, of which none is left where there is nothing but the pace, which is settled."""
    if any(not own_work(case) for case in cases):
        return cases
    journal.settle(cases, NO_PACE)
    return []


def prove_all(absent: Mapping[Case, Reason], preparation: Preparation, journal: Journal) -> None:
    """Proves each case as far as it gets without its device. Raises Refusal."""
    for case, device in absent.items():
        journal.tell(f"proving {case.label} for {case.target}")
        ladder = preparation.prove(case)
        journal.put(proven(journal.setting, case, ladder, device, preparation.subject))


def build_all(willing: Sequence[Case], preparation: Preparation, journal: Journal) -> None:
    """Builds each case, which makes it an entrant; one that cannot be built is settled."""
    for case in willing:
        if not own_work(case):
            journal.tell(f"building {case.label}")
        try:
            journal.entrants.append(preparation.build(case))
        except Refusal as refusal:
            journal.settle([case], refusal.reason)
