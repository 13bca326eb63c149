"""Results as tables: one row a case, the same cells on a terminal and in Markdown."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..lookup.cases import BASELINE, LIBRARY_DEFAULTS, PACE
from ..stats import estimates
from ..terms.case import PRECISIONS
from ..terms.result import Result, Results
from ..terms.units import scaled, significant

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LOG_WIDTH = 200
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
FIRST_TO_GO = (
    "throughput",
    "pays after",
    "task metric",
    "over defaults",
    "deviation",
    "cold start",
    "memory",
)
GAP = 2
LEGEND = (
    "latency: mean of block medians on the log scale; ± is half its 95 % interval over blocks of fresh"
    " processes. speed-up: over eager of the same race, by the median ratio over rounds. over defaults: over"
    " eager with the library's own allocator and thread placement. memory: peak resident, + growth after"
    " imports. cold start: from nothing to the first answer, export and compilation included. pays after:"
    " calls until a shorter latency has paid for a longer cold start. deviation: RMSE to fp64 as a share of"
    " what is allowed."
)


def rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Cells of every result, its race's baseline beside it.

    Results of other races do not matter.
    """
    return [row(one, _entrant(results, one, ()), _entrant(results, one, LIBRARY_DEFAULTS)) for one in results]


def row(one: Result, baseline: Result | None, defaults: Result | None) -> tuple[str, ...]:
    case = one.case
    name = f"{case.workload} {case.backend}" + (
        " (library defaults)" if case.options == LIBRARY_DEFAULTS else case.settings
    )
    name += "" if case.precision == "fp32" else f" {case.precision}"
    name += "" if case.batch == 1 else f" b{case.batch}"
    name += "" if case.target == "cpu" else f" {case.target}"
    status = (
        one.status
        if one.reason is None
        else (
            f"{one.status} {one.verified_to}"
            if one.status == "verified"
            else f"{one.status}: {one.reason.code}"
        )
    )
    latency = one.metrics.get("latency")
    if latency is None:
        return (name, *[""] * 7, deviation(one), task(one), status)
    memory = one.metrics.get("memory")
    throughput = one.metrics.get("throughput")
    cold = one.metrics.get("cold_start")
    return (
        name,
        with_width(latency.estimate, scaled(latency.centre, "s")),
        speedup(one, baseline),
        speedup(one, defaults),
        f"{scaled(throughput.centre, '1/s')[:-2]} {throughput.details['item']}s/s" if throughput else "",
        (
            f"{scaled(memory.centre, 'B')} +{scaled(float(memory.details['growth_bytes'] or 0), 'B')}"
            if memory
            else ""
        ),
        scaled(cold.centre, "s") if cold else "",
        break_even(one, baseline),
        deviation(one),
        task(one),
        status,
    )


def speedup(one: Result, base: Result | None) -> str:
    """How many times faster than base of the same race, with half the interval."""
    if base is None or base is one or "latency" not in one.metrics:
        return ""
    found = estimates.inverse(estimates.ratio(base.metrics["latency"].values, one.metrics["latency"].values))
    return with_width(found, f"{found.centre:.2f}x")


def baseline(results: Sequence[Result], one: Result) -> Result | None:
    """Eager of the same race, in its finest precision."""
    return _entrant(results, one, ())


def with_width(found: estimates.Estimate, text: str) -> str:
    return f"{text} ±{math.expm1(found.half_width):.1%}" if math.isfinite(found.half_width) else text


def break_even(one: Result, baseline: Result | None) -> str:
    """Calls after which the case has caught up with eager's shorter cold start."""
    if (
        baseline is None
        or one is baseline
        or any(name not in result.metrics for result in (one, baseline) for name in ("latency", "cold_start"))
    ):
        return ""
    later = one.metrics["cold_start"].centre - baseline.metrics["cold_start"].centre
    gain = baseline.metrics["latency"].centre - one.metrics["latency"].centre
    if later <= 0:
        return "at once" if gain >= 0 else f"until {significant(later / gain)} calls"
    return f"{significant(later / gain)} calls" if gain > 0 else "never"


def deviation(one: Result) -> str:
    """The worst distance as a share of its tolerance."""
    if one.deviation is None:
        return ""
    if one.case.precision == "int8":
        return (
            f"cosine {min(found.cosine for found in one.deviation.distances.values()):.4f}"
            if one.deviation.distances
            else ""
        )
    shares = [
        found.rmse / found.tolerance if found.tolerance > 0 else math.inf if found.rmse else 0.0
        for found in one.deviation.distances.values()
    ]
    return f"{significant(max(shares), 2)} of allowed" if shares else ""


def task(one: Result) -> str:
    metric = one.deviation.task if one.deviation else None
    return f"{metric.metric} {metric.value:.4f}" if metric else ""


def reasons(results: Sequence[Result]) -> list[str]:
    """One line for each status that is not ok and each warning, equal ones joined."""
    lines: dict[str, list[str]] = {}
    for one in results:
        for text in ([f"{one.status}: {one.reason}"] if one.reason else []) + list(one.warnings):
            lines.setdefault(text, []).append(one.case.id)
    return [
        f"{', '.join(cases) if len(cases) <= 3 else f'{len(cases)} cases'}: {text}"
        for text, cases in lines.items()
    ]


def setting(results: Results) -> list[str]:
    """What every table needs to be read: hardware, threads, libraries, how the race went."""
    found = []
    for environment in results.environment.values():
        libraries = ", ".join(
            f"{name} {version}"
            for name, version in environment.libraries.items()
            if name in ("torch", "onnxruntime-gpu", "onnxruntime", "openvino")
        )
        found.append(
            f"{environment.hardware}; {libraries}; Python {environment.python}; allocator"
            f" {environment.allocator}{priority(results)}"
        )
    commits = list(
        dict.fromkeys(environment.commit[:7] or "unknown" for environment in results.environment.values())
    )
    return [
        *dict.fromkeys(found),
        *([f"Measured at commits {', '.join(commits)}"] if len(commits) > 1 else []),
    ]


def priority(results: Results) -> str:
    """Whether the scheduler preferred the workers; of several answers one that is not `raised`."""
    found = {one.disturbance.priority for one in results.results if one.disturbance is not None} - {""}
    return f"; priority {min(found)}" if found else ""


def console() -> Console:
    """Standard output; where it is no terminal, wide enough for a table."""
    from rich.console import Console

    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=LOG_WIDTH)


def table(results: Sequence[Result], width: int) -> Table:
    """For a terminal of this width: empty columns are left out, then the least important ones until
    the rest fits on one line a case.
    """
    from rich.table import Table
    from rich.text import Text

    cells = [HEAD, *rows(results)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(HEAD))]
    used = [index for index in range(len(HEAD)) if any(line[index] for line in cells[1:])]
    for name in FIRST_TO_GO:
        if sum(widths[index] + GAP for index in used) - GAP > width and HEAD.index(name) in used:
            used.remove(HEAD.index(name))
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for index in used:
        made.add_column(
            HEAD[index], justify="left" if HEAD[index] in ("case", "status") else "right", overflow="fold"
        )
    for line in cells[1:]:
        made.add_row(*(Text(line[index]) for index in used))
    return made


def markdown(results: Results) -> str:
    """The table of a results file with its setting, and the hash of the file's content, so that a
    test can make it again.
    """
    cells = rows([one for one in results.results if one.case.backend != PACE])
    used = [index for index in range(len(HEAD)) if any(line[index] for line in cells)]
    cases = [one.case for one in results.results]
    asked = dict.fromkeys(f"{case.precision}, batch {case.batch}, {case.target}" for case in cases)
    lines = [
        *(f"{line}." for line in setting(results)),
        f"{'; '.join(asked)}. Baseline: {baselines(results.results)} of the same race.",
        "",
        "| " + " | ".join(HEAD[index] for index in used) + " |",
        "|" + "---|" * len(used),
        *("| " + " | ".join(line[index].replace("|", "\\|") for index in used) + " |" for line in cells),
        "",
        LEGEND,
    ]
    return "\n".join(lines) + "\n"


def baselines(results: Sequence[Result]) -> str:
    """Eager, with its precision where races have several."""
    found = {
        (one.race_id, base.case.precision)
        for one in results
        if (base := _entrant(results, one, ())) is not None
    }
    several = len({(one.race_id, one.case.precision) for one in results}) > len(
        {one.race_id for one in results}
    )
    return (
        f"{BASELINE} {', '.join(sorted({precision for _, precision in found}))}"
        if several and found
        else BASELINE
    )


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _entrant(results: Sequence[Result], one: Result, options: tuple[tuple[str, str], ...]) -> Result | None:
    """Of the same race, in the finest precision."""
    found = [
        other
        for other in results
        if other.race_id == one.race_id
        and other.case.backend == BASELINE
        and other.case.options == options
        and "latency" in other.metrics
    ]
    return min(found, key=lambda other: PRECISIONS.index(other.case.precision), default=None)
