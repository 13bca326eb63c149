"""Results as tables: one row a case, the same cells on a terminal and in Markdown."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from rich.table import Table

from ..lookup.cases import BASELINE, LIBRARY_DEFAULTS, PACE, baseline_of
from ..stats import estimates
from ..terms import escape
from ..terms.case import PRECISIONS, Case
from ..terms.result import Result, Results
from ..terms.units import scaled, significant
from .console import console

HEAD = (
    "case",
    "latency",
    "speed-up",
    "over defaults",
    "throughput",
    "memory",
    "cold start",
    "pays after",
    "deviation",
    "task metric",
    "status",
)
# Columns that a narrow terminal does without, the least important first.
FIRST_TO_GO = (
    "throughput",
    "pays after",
    "task metric",
    "over defaults",
    "deviation",
    "cold start",
    "memory",
)
# Of a sound result whose interval is wide, in place of its status `noisy`.
WIDE = "wide interval"
# Between columns, in characters.
GAP = 2
LEGEND = (
    "latency: mean of block medians on the log scale; ± is half its 95 % interval over blocks of fresh"
    " processes. speed-up: over the baseline of the same race (eager; of an ONNX file onnxruntime), by the"
    " median ratio over rounds. over defaults: over the baseline with the library's own allocator and thread"
    " placement. memory: peak resident, + growth after imports. cold start: from nothing to the first answer,"
    " export and compilation included. pays after: calls until a shorter latency has paid for a longer cold"
    " start. deviation: RMSE to fp64 as a share of what is allowed."
)


def rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Returns the cells of every result, in the order of HEAD, each compared with the baseline of
    its own race.
    """
    return [
        row(result, _entrant(results, result, ()), _entrant(results, result, LIBRARY_DEFAULTS))
        for result in results
    ]


def row(result: Result, baseline: Result | None, defaults: Result | None) -> tuple[str, ...]:
    case = result.case
    name = f"{case.workload} {way(case)}"
    name += "" if case.batch == 1 else f" b{case.batch}"
    name += "" if case.target == "cpu" else f" {case.target}"
    status = standing(result)
    latency = result.metrics.get("latency")
    if latency is None:
        return (name, *[""] * 7, deviation(result), task(result), status)
    memory = result.metrics.get("memory")
    throughput = result.metrics.get("throughput")
    cold = result.metrics.get("cold_start")
    return (
        name,
        with_width(latency.estimate, scaled(latency.centre, "s")),
        speedup(result, baseline),
        speedup(result, defaults),
        f"{scaled(throughput.centre, '1/s')[:-2]} {throughput.details['item']}s/s" if throughput else "",
        (
            f"{scaled(memory.centre, 'B')} +{scaled(float(memory.details['growth_bytes'] or 0), 'B')}"
            if memory
            else ""
        ),
        scaled(cold.centre, "s") if cold else "",
        break_even(result, baseline),
        deviation(result),
        task(result),
        status,
    )


def way(case: Case) -> str:
    """Returns how a case runs its workload, in words: backend, options, and a precision that is not
    fp32.
    """
    options = " (library defaults)" if case.options == LIBRARY_DEFAULTS else case.settings
    return f"{case.backend}{options}" + ("" if case.precision == "fp32" else f" {case.precision}")


def standing(result: Result) -> str:
    """Returns the status with its reason's code, in words: a wide interval is no failure."""
    if result.status == "verified":
        return f"verified {result.verified_to}"
    if wide(result):
        return f"ok, {WIDE}"
    return result.status if result.reason is None else f"{result.status}: {result.reason.code}"


def wide(result: Result) -> bool:
    """Whether a result is sound, and all there is to say is that its interval is wide."""
    return result.status == "noisy" and result.reason is not None and result.reason.code == "wide_interval"


def shown(results: Sequence[Result]) -> list[Result]:
    """Returns the results of what a person asked for: all but the pace."""
    return [result for result in results if result.case.backend != PACE]


def speedup(result: Result, base: Result | None) -> str:
    """Returns how many times faster than base of the same race, with half the interval."""
    if base is None or base is result or "latency" not in result.metrics:
        return ""
    ratio = estimates.inverse(
        estimates.ratio(base.metrics["latency"].values, result.metrics["latency"].values)
    )
    return with_width(ratio, f"{ratio.centre:.2f}x")


def baseline(results: Sequence[Result], result: Result) -> Result | None:
    """Returns eager of the same race, in its finest precision."""
    return _entrant(results, result, ())


def with_width(estimate: estimates.Estimate, text: str) -> str:
    return f"{text} ±{math.expm1(estimate.half_width):.1%}" if math.isfinite(estimate.half_width) else text


def break_even(result: Result, baseline: Result | None) -> str:
    """Returns the calls after which a case has caught up with eager's shorter cold start."""
    needed = {"latency", "cold_start"}
    if (
        baseline is None
        or result is baseline
        or not needed <= result.metrics.keys() & baseline.metrics.keys()
    ):
        return ""
    later = result.metrics["cold_start"].centre - baseline.metrics["cold_start"].centre
    gain = baseline.metrics["latency"].centre - result.metrics["latency"].centre
    if later <= 0:
        return "at once" if gain >= 0 else f"until {significant(later / gain)} calls"
    return f"{significant(later / gain)} calls" if gain > 0 else "never"


def deviation(result: Result) -> str:
    """Returns the worst distance as a share of its tolerance; of int8 the least cosine."""
    if result.deviation is None:
        return ""
    if result.case.precision == "int8":
        return (
            f"cosine {min(distance.cosine for distance in result.deviation.distances.values()):.4f}"
            if result.deviation.distances
            else ""
        )
    shares = [
        distance.rmse / distance.tolerance if distance.tolerance > 0 else math.inf if distance.rmse else 0.0
        for distance in result.deviation.distances.values()
    ]
    return f"{significant(max(shares), 2)} of allowed" if shares else ""


def task(result: Result) -> str:
    metric = result.deviation.task if result.deviation else None
    return f"{metric.metric} {metric.value:.4f}" if metric else ""


def reasons(results: Sequence[Result]) -> list[str]:
    """Returns a line for each status that is not ok and each warning, equal ones joined."""
    lines: dict[str, list[str]] = {}
    for result in shown(results):
        for text in ([reason(result)] if result.reason else []) + list(result.warnings):
            lines.setdefault(text, []).append(result.case.id)
    return [
        f"{', '.join(cases) if len(cases) <= 3 else f'{len(cases)} cases'}: {text}"
        for text, cases in lines.items()
    ]


def reason(result: Result) -> str:
    """Returns the status of a result that has a reason, with the reason's sentence."""
    assert result.reason is not None
    if wide(result):
        return f"{standing(result)}: {result.reason.detail}"
    return f"{result.status}: {result.reason}"


def setting(results: Results) -> list[str]:
    """Returns what every table needs to be read: hardware, libraries, priority, commits."""
    lines = []
    for environment in results.environment.values():
        libraries = ", ".join(
            f"{name} {version}"
            for name, version in environment.libraries.items()
            if name in ("torch", "onnxruntime-gpu", "onnxruntime", "openvino")
        )
        lines.append(
            f"{environment.hardware}; {libraries}; Python {environment.python}; allocator"
            f" {environment.allocator}{priority(results)}"
        )
    commits = list(
        dict.fromkeys(environment.commit[:7] or "unknown" for environment in results.environment.values())
    )
    return [
        *dict.fromkeys(lines),
        *([f"Measured at commits {', '.join(commits)}"] if len(commits) > 1 else []),
    ]


def priority(results: Results) -> str:
    """Returns whether the scheduler preferred the workers; of several answers one that is not
    `raised`.
    """
    priorities = {
        result.disturbance.priority for result in results.results if result.disturbance is not None
    } - {""}
    return f"; priority {min(priorities)}" if priorities else ""


def show(results: Results) -> None:
    """Prints the table of a results file, with its setting before and its reasons after it."""
    output = console()
    for line in setting(results):
        output.print(line)
    output.print(table(results.results, output.width))
    for line in reasons(results.results):
        output.print(f"  {line}")


def table(results: Sequence[Result], width: int) -> Table:
    """Returns the table for a terminal of this width, in characters: empty columns are left out,
    then the least important ones until the rest fits on one line a case.
    """
    cells = [HEAD, *rows(shown(results))]
    widths = [max(len(line[index]) for line in cells) for index in range(len(HEAD))]
    used = [index for index in range(len(HEAD)) if any(line[index] for line in cells[1:])]
    for name in FIRST_TO_GO:
        if sum(widths[index] + GAP for index in used) - GAP > width and HEAD.index(name) in used:
            used.remove(HEAD.index(name))
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for index in used:
        drawn.add_column(
            HEAD[index], justify="left" if HEAD[index] in ("case", "status") else "right", overflow="fold"
        )
    for line in cells[1:]:
        drawn.add_row(*(line[index] for index in used))
    return drawn


def markdown(results: Results) -> str:
    """Returns the table of a results file, with its setting before and the legend after it."""
    cells = rows(shown(results.results))
    used = [index for index in range(len(HEAD)) if any(line[index] for line in cells)]
    cases = [result.case for result in results.results]
    asked = dict.fromkeys(f"{case.precision}, batch {case.batch}, {case.target}" for case in cases)
    lines = [
        *(f"{escape.markdown(line)}." for line in setting(results)),
        escape.markdown(f"{'; '.join(asked)}. Baseline: {baselines(results.results)} of the same race."),
        "",
        "| " + " | ".join(HEAD[index] for index in used) + " |",
        "|" + "---|" * len(used),
        *("| " + " | ".join(escape.markdown(line[index]) for index in used) + " |" for line in cells),
        "",
        LEGEND,
    ]
    return "\n".join(lines) + "\n"


def baselines(results: Sequence[Result]) -> str:
    """Returns the baselines' name, with their precisions where races have several."""
    pairs = {
        (result.race_id, base.case.precision)
        for result in results
        if (base := _entrant(results, result, ())) is not None
    }
    several = len({(result.race_id, result.case.precision) for result in results}) > len(
        {result.race_id for result in results}
    )
    names = " or ".join(dict.fromkeys(baseline_of(result.case.workload) for result in results)) or BASELINE
    return (
        f"{names} {', '.join(sorted({precision for _, precision in pairs}))}" if several and pairs else names
    )


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _entrant(
    results: Sequence[Result], result: Result, options: tuple[tuple[str, str], ...]
) -> Result | None:
    """Returns the baseline with these options of the same race, in the finest precision."""
    matches = [
        other
        for other in results
        if other.race_id == result.race_id
        and other.case.backend == baseline_of(result.case.workload)
        and other.case.options == options
        and "latency" in other.metrics
    ]
    return min(matches, key=lambda other: PRECISIONS.index(other.case.precision), default=None)
