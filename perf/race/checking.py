"""Whether an entrant's outputs are right and its work ran where it should, before it is timed."""

from __future__ import annotations

from ..oracle import check
from ..terms.case import Plan
from ..terms.reasons import Refusal
from ..terms.result import Deviation
from .entrant import Entrant, load_worker
from .messages import RunSplit, RunStored, Score, TellPlacement
from .servers import Servers


def check_entrant(entrant: Entrant, plan: Plan, servers: Servers) -> None:
    """Holds its outputs on random, real and rotating inputs and its task metric against the
    oracle's, then asks where the work ran. Raises Refusal.

    What was seen stands in the entrant: deviation, limits of timed calls, placement.
    """
    oracle, precision, metric = entrant.oracle, entrant.case.precision, entrant.seen.subject.task
    load_worker(entrant, plan, servers, "check", fresh=False)
    worker = entrant.running()
    entrant.outputs.mkdir(parents=True, exist_ok=True)
    outputs = {kind: entrant.outputs / f"{kind}.npz" for kind in (*oracle.kinds, "timed")}
    for kind, path in outputs.items():
        request = RunStored(str(oracle.inputs / f"{kind}.npz"), str(path))
        try:
            worker.ask(request, plan.timeout_s)
        except Refusal as refusal:
            if "=" not in kind:
                raise
            raise Refusal(
                "unsupported_op",
                f"it does not take {kind}, and the workload says that it is free: {refusal.reason.detail}",
            ) from refusal
    distances = check.distances(
        oracle.folder,
        {kind: outputs[kind] for kind in oracle.kinds},
        precision,
        entrant.seen.subject.work.terms,
        entrant.seen.subject.outputs,
    )
    has_task = metric is not None or oracle.judged
    entrant.deviation = Deviation(distances)
    check.judge(entrant.deviation, precision, has_task)
    if metric is not None:
        scores = scored(entrant, plan)
        entrant.deviation = Deviation(distances, check.task(metric, scores, precision))
        check.judge(entrant.deviation, precision, has_task)
    judged = not (precision == "int8" and has_task)
    entrant.limits = check.timed_limits(oracle.folder, outputs, distances, judged)
    entrant.placement = worker.ask(TellPlacement(), plan.timeout_s)
    if entrant.placement.wrong is not None:
        entrant.fell_back = True
        raise Refusal(entrant.placement.wrong.code, entrant.placement.wrong.detail)
    entrant.end_worker()


def scored(entrant: Entrant, plan: Plan) -> dict[str, float]:
    """The task metrics of its outputs on the validation split, by the referee. Raises Refusal."""
    worker, referee = entrant.running(), entrant.oracle.referee
    assert referee is not None
    path = str(entrant.outputs / "validation.npz")
    worker.ask(RunSplit(str(entrant.oracle.inputs / "validation.npz"), path), plan.timeout_s)
    worker.stop()
    referee.go()
    scores = referee.ask(Score(path), plan.timeout_s)
    referee.stop()
    worker.go()
    return scores
