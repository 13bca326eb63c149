"""What stands behind a slower HEAD: both sides of the confirmed case are recorded by the backend's
own profiler, twice in turns, and the package that reviews profiles (entry point group
`hotlap.explain`) says which operators the time went to.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from ..race.entrant import Entrant, load_worker
from ..race.messages import Record
from ..race.servers import Servers
from ..stats import estimates
from ..terms.case import Plan
from ..terms.contract import Schedule
from ..terms.environment import Environment
from ..terms.reasons import Refusal
from .duel import Duel

# Who explains profiles: a function of pairs of files, BASE's and HEAD's, and of the seconds a call
# by which HEAD is slower, that returns a line, or nothing.
GROUP = "hotlap.explain"
# The order in which the sides are recorded: a drift of the machine meets both alike.
TURNS = ((0, 1), (1, 0))
# Calls that are recorded, so that one slow call is no operator's: as many as fit in so many
# seconds, within these bounds.
RECORDED_S = 1.0
FEWEST, MOST = 5, 50


def behind(
    duel: Duel,
    ratio: float,
    plan: Plan,
    servers: Servers,
    environments: Sequence[Environment],
    folder: Path,
) -> str:
    """Returns in one line what the time of a slower HEAD went to, or why that is not known; empty
    where nobody explains profiles.

    ratio: HEAD's latency over BASE's. The profiles are left in the folder. A failure here takes no
    verdict away.
    """
    explainers = metadata.entry_points(group=GROUP)
    if not explainers:
        return ""
    if not hasattr(duel.sides[0].backend, "profile"):
        return f"{duel.case.backend} has no profiler that could say what the time went to"
    name = duel.case.id.replace("/", "_")
    pairs = [[folder / f"{side}-{number}-{name}.json.gz" for side in ("base", "head")] for number in (1, 2)]
    try:
        for files, turns in zip(pairs, TURNS, strict=True):
            for side in turns:
                record(duel.sides[side], plan, servers, environments[side], files[side].absolute())
        slower_s = call_s(duel.sides[0]) * (ratio - 1)
        lines = [explainer.load()(pairs, slower_s) for explainer in explainers]
    except Exception as error:  # nor does another package's fault take a verdict away
        words = str(error) if isinstance(error, (Refusal, OSError)) else f"{type(error).__name__}: {error}"
        return f"what the time went to is not known: {words}"
    return "; ".join(filter(None, lines))


def record(entrant: Entrant, plan: Plan, servers: Servers, environment: Environment, file: Path) -> None:
    """Records some calls of one side into a file. Raises Refusal, OSError."""
    calls = min(MOST, max(FEWEST, round(RECORDED_S / call_s(entrant))))
    about = {
        "case": entrant.case.id,
        "backend": entrant.case.backend,
        "hardware": environment.hardware,
        "libraries": environment.libraries,
        "weights": entrant.seen.subject.weights,
        "flops": entrant.seen.subject.work.flops,
        "peaks": entrant.seen.peaks,
    }
    try:
        load_worker(entrant, plan, servers, "profile", fresh=True)
        schedule = Schedule(wait=FEWEST, warmup=FEWEST, active=calls, stacks=False)
        entrant.running().ask(Record(str(file), schedule, about), plan.timeout_s)
    finally:
        entrant.end_worker()


def call_s(entrant: Entrant) -> float:
    """Returns how long a call took in the race, s."""
    return estimates.median([estimates.median(block) for block in entrant.latencies() if block])
