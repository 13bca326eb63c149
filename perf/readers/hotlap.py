"""hotlap's own results: what `hotlap run` and `hotlap ab` write."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..lookup import source_lines
from ..lookup.cases import PACE
from ..stats import estimates
from ..terms.case import Better
from ..terms.environment import Environment
from ..terms.reasons import Unreadable
from ..terms.result import SCHEMA, Result, Results
from ..terms.verdict import Place
from . import samples
from .contents import Contents
from .side import LATENCY, Known, Sample, Side

TOOL = "hotlap"
MARK = rb'"asked"\s*:\s*\[|"environment"\s*:\s*\{'
# The names of the two runs that `hotlap ab` writes: one race, whose blocks both sides share.
AB_RUNS = ("ab/base", "ab/head")


def claims(contents: Contents) -> bool:
    return {"schema", "results"} <= contents.fields.keys()


def read(contents: Contents) -> list[Side]:
    schema = contents.decode(int, contents.fields["schema"])
    if schema != SCHEMA:
        raise Unreadable(
            f"{contents.path}: results schema {schema}, this hotlap reads {SCHEMA}; measure again"
        )
    file = contents.decode(Results)
    cases = known(file.results, file.environment)
    raced = file.started if file.run in AB_RUNS else ""
    return [Side(contents.path, by_name(cases), file.started, raced)]


def known(
    results: Sequence[Result],
    environments: Mapping[str, Environment],
    written: Mapping[str, Place] | None = None,
) -> list[Known]:
    """Returns what results say of their cases; the pace is no case of its own.

    written: where a case's benchmark stands, if that is known. Raises Unreadable.
    """
    paces = {result.race_id: result for result in results if result.case.backend == PACE}
    return [
        _of_result(result, environments, paces.get(result.race_id), (written or {}).get(result.case.id))
        for result in results
        if result.case.backend != PACE
    ]


def by_name(cases: Sequence[Known]) -> dict[str, Known]:
    """Returns cases by their ids. Raises Unreadable where two have the same."""
    named: dict[str, Known] = {}
    for known in cases:
        if named.setdefault(known.case, known) is not known:
            raise Unreadable(f"{known.case} stands there twice")
    return named


def _of_result(
    result: Result, environments: Mapping[str, Environment], pace: Result | None, place: Place | None
) -> Known:
    if result.environment not in environments:
        raise Unreadable(f"{result.case.id} names an environment that the file does not hold")
    if (wrong := result.contradiction) is not None:
        raise Unreadable(f"{result.case.id}: status {result.status} although {wrong}")
    deviation = None
    if result.deviation is not None and result.deviation.distances:
        deviation = max(
            distance.rmse / distance.tolerance if distance.tolerance > 0 else math.inf
            for distance in result.deviation.distances.values()
        )
    metrics = {}
    for name, measured in result.metrics.items():
        values = [list(block) for block in measured.values if block]
        paced = (
            [list(block) for block in pace.metrics[LATENCY].values]
            if name == LATENCY and pace is not None and LATENCY in pace.metrics
            else []
        )
        try:
            for block in (*values, *filter(None, paced)):
                samples.check(block)
        except ValueError as error:
            raise Unreadable(f"{result.case.id} {error}") from None
        if values:
            metrics[name] = _of_blocks(measured.unit, measured.better, values, paced)
    return Known(
        case=result.case.id,
        environment=environments[result.environment],
        status=result.status,
        reason=str(result.reason or ""),
        metrics=metrics,
        counters=dict(result.placement.counters) if result.placement else {},
        deviation=deviation,
        task=result.deviation.task if result.deviation is not None else None,
        weights=result.weights,
        commit=environments[result.environment].commit,
        place=place or source_lines.find(result.case.workload),
    )


def _of_blocks(unit: str, better: Better, values: list[list[float]], pace: list[list[float]]) -> Sample:
    if not pace:
        return samples.of_processes(values, unit, better)
    ratios = estimates.paired(pace, values)
    centre = math.exp(estimates.fmean([math.log(estimates.middle(block)) for block in values]))
    logs = tuple(math.log(estimates.middle(block)) for block in ratios)
    return Sample(unit, better, centre, logs, tuple(map(tuple, values)), paced=True)
