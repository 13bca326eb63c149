"""A first look at a race: as soon as the baseline and what is built soonest are there, the two are
raced for a few seconds, so that a person sees rows before all the others are built.

Its rows are shown and not kept: the race checks and measures the same two again, beside the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import msgspec

from ..lookup.cases import BASELINE
from ..race.entrant import Entrant
from ..race.race import Race
from ..race.servers import Servers
from ..terms.case import Case, Plan
from ..terms.result import Result
from .answer import answer
from .journal import Journal
from .prepare import own_work

# The baseline, and the backend that is built soonest.
SOONEST = (BASELINE, "onnxruntime")
# With fewer others to build, the race itself is there soon.
LEAST_OTHERS = 2
# Room for three blocks beside a busy neighbour, s; on a quiet machine they take half of it.
BUDGET_S = 6.0
# Three blocks are the fewest that give an interval; their workers are forked, since importing torch
# takes longer than all of the timing. Memory and cold start need workers of their own and are left
# to the race.
PLAN = {"budget_s": BUDGET_S, "looks": (3,), "rounds": 10, "tail_s": 0.0, "fresh_blocks": 0}


def members(willing: Sequence[Case], plan: Plan) -> list[Case]:
    """Returns the cases of a first look at the race of these, the baseline first; none where the
    race has few entrants, or no more time than the look.
    """
    ours = [case for case in willing if not own_work(case)]
    soonest = [case for case in ours if case.spec in SOONEST and case.precision == ours[0].precision]
    if len(soonest) < len(SOONEST) or len(ours) - len(soonest) < LEAST_OTHERS:
        return []
    return soonest if plan.budget_s > BUDGET_S else []


def looked(journal: Journal, servers: Servers) -> list[Result]:
    """Races what the journal has as entrants so far, and returns their results for showing."""
    plan = msgspec.structs.replace(journal.plan, **PLAN)
    entrants = [unraced(entrant) for entrant in journal.entrants]
    race = Race(entrants, plan, servers, lambda text: journal.tell(f"first look: {text}"), lambda: None)
    race.run()
    setting = dataclasses.replace(journal.setting, plan=plan)
    return [answer(setting, entrant, entrants[0], race.stopped_by, False) for entrant in entrants]


def unraced(entrant: Entrant) -> Entrant:
    """Returns an entrant that was just built as one whose race leaves no trace in it."""
    return dataclasses.replace(
        entrant,
        seen=msgspec.structs.replace(entrant.seen, blocks=[]),
        doubts=[],
        strays=set(),
        weighed_s=[],
    )
