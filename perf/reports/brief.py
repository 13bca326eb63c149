"""The shortest table of a results file: one row a model, the fastest backend whose outputs are
right.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..lookup.cases import LIBRARY_DEFAULTS, PACE
from ..terms import escape
from ..terms.result import Result, Results
from ..terms.units import scaled
from .report import WIDE, baseline, baselines, row, setting, speedup, wide

HEAD = ("model", "fastest right backend", "speed-up over eager", "memory, peak", "cold start")
LEGEND = (
    "Fastest of those whose outputs were within the oracle's tolerance of fp64. ± is half the 95 %"
    " interval over blocks of fresh processes. Cold start: from nothing to the first answer, export and"
    " compilation included."
)


def markdown(results: Results) -> str:
    """Returns the table in Markdown, below what it needs to be read: hardware, libraries,
    baseline.
    """
    cases = [result.case for result in results.results]
    asked = dict.fromkeys(f"{case.precision}, batch {case.batch}, {case.target}" for case in cases)
    lines = [
        *(f"{escape.markdown(line)}." for line in setting(results)),
        escape.markdown(f"{'; '.join(asked)}. Baseline: {baselines(results.results)} of the same race."),
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
        *(
            "| " + " | ".join(map(escape.markdown, cells(results.results, result))) + " |"
            for result in fastest(results.results)
        ),
        "",
        LEGEND,
    ]
    return "\n".join(lines) + "\n"


def fastest(results: Sequence[Result]) -> list[Result]:
    """Returns the result with the shortest latency of each model, batch size and target."""
    best: dict[tuple[str, int, str, str], Result] = {}
    for result in results:
        case = result.case
        if case.backend == PACE or case.options == LIBRARY_DEFAULTS or "latency" not in result.metrics:
            continue
        key = (case.workload, case.batch, case.target, case.mode)
        if key not in best or result.metrics["latency"].centre < best[key].metrics["latency"].centre:
            best[key] = result
    return list(best.values())


def cells(results: Sequence[Result], result: Result) -> tuple[str, ...]:
    """Returns one row; a model that nothing makes faster than eager has no speed-up."""
    eager = baseline(results, result)
    name = row(result, eager, None)[0].removeprefix(f"{result.case.workload} ")
    latency, memory, cold = (result.metrics.get(metric) for metric in ("latency", "memory", "cold_start"))
    assert latency is not None
    doubt = WIDE if wide(result) else "noisy" if result.status == "noisy" else ""
    return (
        result.case.workload,
        f"{name}, {scaled(latency.centre, 's')}" + (f" ({doubt})" if doubt else ""),
        speedup(result, eager),
        scaled(memory.centre, "B") if memory else "",
        scaled(cold.centre, "s") if cold else "",
    )
