"""An artefact raced against the pace: the harness's own oracle, blocks and turns, with the folder's
stored inputs and outputs in place of the workload.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ..artefacts import manifest, opening, writing
from ..artefacts.manifest import Manifest
from ..lookup import plugins
from ..lookup.cases import PACE
from ..lookup.workloads import Reference
from ..oracle.arrays import inputs_alone
from ..oracle.check import bounded
from ..race import leavings
from ..race.entrant import Entrant, Oracle
from ..race.observations import Observations
from ..race.race import Race
from ..race.servers import Servers
from ..reports import report
from ..terms import files
from ..terms.case import Case, Plan
from ..terms.contract import modules
from ..terms.reasons import Reason, Refusal, room
from ..terms.result import Result
from ..terms.work import Subject
from .answer import Setting, answer, unmeasured
from .prepare import folder_name, own_work, worker_environment
from .rundir import RunFolder

# The absolute latency has no target to reach, so a race of one entrant ends here or when its budget
# is spent.
BLOCKS = 12
# How far outputs judged by a task metric, which needs the workload, may be from fp64, as a multiple
# of what they were when it was built.
AS_BUILT = 2.0


class Alone(Race):
    """A race of one artefact; the pace beside it is for nothing if the artefact fails its check."""

    def check(self) -> None:
        super().check()
        for entrant in self.entrants[1:]:
            entrant.refusal = self.entrants[0].refusal


def measure(
    folder: Path, built: Manifest, run: RunFolder, plan: Plan, environment: str, tell: Callable[[str], None]
) -> list[Result]:
    """The artefact's result and the pace's. `run` has them after each block."""
    setting = Setting(f"{run.id}/artefact", plan, environment)
    try:
        case = opening.here(built)
    except Refusal as refusal:
        return refused(run, setting, built.parsed(), refusal)
    run.ask([case])
    leavings.clear(tell)
    servers = Servers(run.folder, plan.timeout_s, tell)
    entrants: list[Entrant] = []
    work = run.folder / "work"

    def journal(interrupted: bool = True) -> None:
        run.put(
            answer(setting, entrant, entrants[0], race.stopped_by, interrupted)
            for entrant in entrants
            if entrant is entrants[0] or entrant.seen.timed
        )

    try:
        files.clear(work, below=run.folder)
        with room():
            copy(folder, built, work)
        pace = Case(case.workload, PACE, case.precision, case.batch, case.target)
        entrants += [entrant_of(each, built, work, run.folder / "log", plan) for each in (case, pace)]
        race = Alone(entrants, plan, servers, tell, journal)
        race.run()
        entrants[0].refusal = entrants[0].refusal or worse(built, entrants[0])
        journal(interrupted=False)
        return list(run.results.results)
    except Refusal as refusal:
        return refused(run, setting, case, refusal)
    finally:
        servers.close()
        shutil.rmtree(work, ignore_errors=True)


def refused(run: RunFolder, setting: Setting, case: Case, refusal: Refusal) -> list[Result]:
    """The result of an artefact that cannot be measured, written to the run."""
    result = unmeasured(setting, case, refusal.reason)
    run.ask([case])
    run.put([result])
    return [result]


def copy(folder: Path, built: Manifest, work: Path) -> None:
    """Backends leave evidence beside the model, and the artefact stays as it is.

    What was copied is what is compared. Raises OSError, Unreadable, and Refusal where its own files
    allow it too much.
    """
    for file in built.files:
        target = work / "model" / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        writing.link(folder / file.path, target)
    manifest.compare(work / "model", built)
    judged = (
        built.deviation.distances.get("random") if built.precision == "int8" and built.deviation else None
    )
    bounded(
        folder / manifest.REFERENCE,
        built.precision,
        built.work.terms,
        judged.rmse if judged is not None else 0.0,
    )
    (work / "oracle" / "inputs").mkdir(parents=True)
    for name in ("random", "timed"):
        writing.link(folder / manifest.REFERENCE, work / "oracle" / f"{name}.npz")
        inputs_alone(folder / manifest.REFERENCE, work / "oracle" / "inputs" / f"{name}.npz")


def entrant_of(case: Case, built: Manifest, work: Path, log: Path, plan: Plan) -> Entrant:
    """The artefact, or the pace beside it, as an entrant."""
    backend, name = plugins.backend(case.backend), folder_name(case)
    size = sum(file.bytes for file in built.files)
    judged = built.deviation is not None and built.deviation.task is not None
    return Entrant(
        case,
        backend,
        list(modules(backend, case)),
        worker_environment(case, case.threads(plan.threads)),
        work / "model",
        work / "outputs" / name,
        log / name,
        Observations(case, {}, Subject(built.work, built.weights), artefact_bytes=size),
        Oracle(Reference(""), work / "oracle", None, ("random",), judged),
        own_work=own_work(case),
    )


def worse(built: Manifest, entrant: Entrant) -> Reason | None:
    """Whether outputs of int8, which a task metric judged when it was built, are further out than
    they were.
    """
    if (
        entrant.case.precision != "int8"
        or built.deviation is None
        or entrant.deviation is None
        or "random" not in built.deviation.distances
    ):
        return None
    then, now = built.deviation.distances["random"], entrant.deviation.distances["random"]
    if now.rmse <= max(now.tolerance, AS_BUILT * then.rmse):
        return None
    return Reason(
        "accuracy",
        f"outputs on random inputs are off by {now.rmse:.3g} RMSE; they were by {then.rmse:.3g} when it was"
        " built",
    )


def summary(built: Manifest, results: Sequence[Result]) -> list[str]:
    """What stands below the table."""
    lines = report.reasons(results)
    then = built.deviation.distances.get("random") if built.deviation is not None else None
    now = results[0].deviation
    if then is not None and now is not None:
        lines.append(
            f"deviation on its random inputs: {now.distances['random'].rmse:.3g} RMSE to fp64,"
            f" {then.rmse:.3g} when it was built; at most {then.tolerance:.3g}"
        )
    return lines
