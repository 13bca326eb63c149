"""An artefact raced against the pace: the harness's own oracle, blocks and turns, with the folder's
stored inputs and outputs in place of the workload.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..artefacts import manifest, opening, writing
from ..artefacts.manifest import Manifest
from ..lookup import plugins
from ..lookup.cases import PACE
from ..race.observations import Observations
from ..race.race import Entrant, Oracle, Race
from ..race.servers import Servers
from ..reports import report
from ..terms.case import Case, Plan
from ..terms.contract import modules
from ..terms.reasons import Reason, Refusal, room
from ..terms.result import Result
from .answer import answer, unmeasured
from .prepare import folder_name, own_work, worker_environment
from .rundir import RunFolder

# The absolute latency has no target to reach, so a race of one entrant ends here or when its budget
# is spent.
BLOCKS = 12
NO_REFEREE: Any = None
# How far outputs judged by a task metric, which needs the workload, may be from fp64, as a multiple
# of what they were when it was built.
AS_BUILT = 2.0


class Alone(Race):
    """The pace is for nothing if the artefact does not pass the check."""

    def check(self) -> None:
        super().check()
        for entrant in self.entrants[1:]:
            entrant.refusal = self.entrants[0].refusal


def measure(
    folder: Path, found: Manifest, run: RunFolder, plan: Plan, environment: str, tell: Callable[[str], None]
) -> list[Result]:
    """The artefact's result and the pace's. `run` has them after each block."""
    race_id = f"{run.id}/artefact"
    try:
        case = opening.here(found)
    except Refusal as refusal:
        case = found.parsed()
        run.ask([case])
        run.put([one := unmeasured(case, race_id, plan, refusal.reason, environment)])
        return [one]
    run.ask([case])
    servers = Servers(run.folder, plan.timeout_s, tell)
    entrants: list[Entrant] = []
    work = run.folder / "work"

    def journal(interrupted: bool = True) -> None:
        run.put(
            answer(entrant, entrants[0], race_id, plan, environment, race.stopped_by, interrupted)
            for entrant in entrants
            if entrant is entrants[0] or entrant.seen.timed
        )

    try:
        with room():
            copy(folder, found, work)
        entrants += [
            entrant(one, found, work, run.folder / "log", plan)
            for one in (case, Case(case.workload, PACE, case.precision, case.batch, case.target))
        ]
        race = Alone(entrants, plan, servers, tell, journal)
        race.run()
        entrants[0].refusal = entrants[0].refusal or worse(found, entrants[0])
        journal(interrupted=False)
        return list(run.results.results)
    except Refusal as refusal:
        run.put([one := unmeasured(case, race_id, plan, refusal.reason, environment)])
        return [one]
    finally:
        servers.close()
        shutil.rmtree(work, ignore_errors=True)


def copy(folder: Path, found: Manifest, work: Path) -> None:
    """Backends leave evidence beside the model, and the artefact stays as it is.

    What was copied is what is compared. Raises OSError and Unreadable.
    """
    for file in found.files:
        target = work / "model" / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        writing.link(folder / file.path, target)
    manifest.compare(work / "model", found)
    (work / "oracle").mkdir()
    for name in ("random", "timed"):
        writing.link(folder / manifest.REFERENCE, work / "oracle" / f"{name}.npz")


def entrant(case: Case, found: Manifest, work: Path, log: Path, plan: Plan) -> Entrant:
    backend, name = plugins.backend(case.backend), folder_name(case)
    info: dict[str, Any] = {
        **msgspec.structs.asdict(found.work),
        "weights": found.weights,
        "task": None,
        "artefact_bytes": sum(file.bytes for file in found.files),
    }
    judged = found.deviation is not None and found.deviation.task is not None
    return Entrant(
        case,
        backend,
        list(modules(backend, case)),
        worker_environment(case, plan.threads),
        work / "model",
        work / "outputs" / name,
        log / name,
        Observations(case, {}, info, {}),
        Oracle(("", ""), work / "oracle", NO_REFEREE, ("random",), judged),
        own_work=own_work(case),
        kind=case.backend,
    )


def worse(found: Manifest, entrant: Entrant) -> Reason | None:
    """Whether outputs of int8, which a task metric judged when it was built, are further out than
    they were.
    """
    if (
        entrant.case.precision != "int8"
        or found.deviation is None
        or entrant.deviation is None
        or "random" not in found.deviation.distances
    ):
        return None
    then, now = found.deviation.distances["random"], entrant.deviation.distances["random"]
    if now.rmse <= max(now.tolerance, AS_BUILT * then.rmse):
        return None
    return Reason(
        "accuracy",
        f"outputs on random inputs are off by {now.rmse:.3g} RMSE; they were by {then.rmse:.3g} when it was"
        " built",
    )


def summary(found: Manifest, results: Sequence[Result]) -> list[str]:
    """What stands below the table."""
    lines = report.reasons(results)
    then = found.deviation.distances.get("random") if found.deviation is not None else None
    now = results[0].deviation
    if then is not None and now is not None:
        lines.append(
            f"deviation on its random inputs: {now.distances['random'].rmse:.3g} RMSE to fp64,"
            f" {then.rmse:.3g} when it was built; at most {then.tolerance:.3g}"
        )
    return lines
