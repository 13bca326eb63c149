"""Models x backends x precisions as Markdown: a table for each target and precision, no cell empty,
every reason once below.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set

import msgspec

from ..oracle import ladder
from ..stats import estimates
from ..terms import escape
from ..terms.case import PRECISIONS
from ..terms.reasons import Reason
from ..terms.result import Result, Results
from ..terms.units import scaled
from . import report

LEGEND = (
    "Measured (L7: it ran there): latency ± half its 95 % interval over blocks of fresh processes; speed-up"
    " over fp32 eager of the same race; for other precisions also over fp32 of the same backend (÷ fp32);"
    " then the deviation. Proven without the device: the rung reached; for TensorRT what its engine took to"
    " build on this CPU, and its size. Deviation: RMSE to fp64 as a share of what is allowed, for int8 the"
    " cosine, and the task metric where there is one."
)


def markdown(results: Results) -> str:
    """Returns the tables of a results file, in the order in which it was asked for.

    Backends with options stand in columns of their own.
    """
    order = {case: place for place, case in enumerate(results.asked)}
    shown = sorted(
        report.shown(results.results),
        key=lambda result: order.get(result.case, len(order)),
    )
    notes: dict[str, int] = {}
    pending = set(results.asked) - {result.case for result in shown}
    lines = [*(f"{escape.markdown(line)}." for line in report.setting(results)), ""]
    for target in dict.fromkeys(result.case.target for result in shown):
        for precision in PRECISIONS:
            group = [
                result
                for result in shown
                if result.case.target == target and result.case.precision == precision
            ]
            if group:
                waiting = {
                    (case.workload, case.batch, case.spec)
                    for case in pending
                    if (case.target, case.precision) == (target, precision)
                }
                lines += [
                    *table(group, shown, f"{precision}, batch {batches(group)}, {target}", notes, waiting),
                    "",
                ]
    lines += [LEGEND, ""]
    if rungs := sorted({result.verified_to for result in shown if result.status == "verified"}):
        lines += [f"Rungs: {', '.join(f'{rung} {ladder.MEANING[rung]}' for rung in rungs)}.", ""]
    lines += [f"{number}. {escape.markdown(text)}" for text, number in notes.items()]
    return "\n".join(lines).rstrip() + "\n"


def batches(group: Sequence[Result]) -> str:
    return ", ".join(str(size) for size in sorted({result.case.batch for result in group}))


def table(
    group: Sequence[Result],
    everything: Sequence[Result],
    title: str,
    notes: dict[str, int],
    waiting: Set[tuple[str, int, str]],
) -> list[str]:
    """Returns the lines of one table. group: its results. everything: all results, for baselines.

    notes: reason -> its number, given here. waiting: workload, batch and backend of what was
    asked for of this target and precision and has no result yet.
    """
    columns = list(dict.fromkeys(result.case.spec for result in group))
    rows = list(dict.fromkeys((result.case.workload, result.case.batch) for result in group))
    several = len({size for _, size in rows}) > 1
    results_of = {(result.case.workload, result.case.batch, result.case.spec): result for result in group}
    heads = " | ".join(map(escape.markdown, columns))
    lines = [f"**{escape.markdown(title)}**", "", f"| model | {heads} |", f"|---|{'---|' * len(columns)}"]
    for name, size in rows:
        keys = [(name, size, head) for head in columns]
        cells = [
            (
                cell(results_of[key], everything, notes)
                if key in results_of
                else "not yet"
                if key in waiting
                else "not asked"
            )
            for key in keys
        ]
        model = (name.rpartition(":")[2] if "." in name else name) + (f" b{size}" if several else "")
        lines.append("| " + " | ".join(map(escape.markdown, [model, *cells])) + " |")
    return lines


def cell(result: Result, everything: Sequence[Result], notes: dict[str, int]) -> str:
    """Returns one cell: the status where it is not ok, then what was measured or proven."""
    parts: list[str] = []
    if result.status == "verified":
        parts.append(result.verified_to)
    elif result.reason is not None:
        number = notes.setdefault(normal(result), len(notes) + 1)
        proven = f", {result.verified_to}" if result.proofs else ""
        parts.append(
            f"{report.WIDE if report.wide(result) else 'noisy'} ({number})"
            if result.status == "noisy"
            else f"{result.status}: {result.reason.code} ({number}){proven}"
        )
    latency = result.metrics.get("latency")
    if latency is not None:
        parts.append(report.with_width(latency.estimate, scaled(latency.centre, "s")))
        parts += [
            report.with_width(estimate, f"{estimate.centre:.2f}x") + suffix
            for estimate, suffix in speedups(result, everything)
        ]
    if "build" in result.build_s and result.placement is not None:
        counters = result.placement.counters
        size = counters.get("engine_bytes", counters["artefact_bytes"])
        parts.append(f"{scaled(result.build_s['build'], 's')}, {scaled(size, 'B')}")
    parts += [text for text in (report.deviation(result), report.task(result)) if text]
    return "; ".join(parts)


def speedups(result: Result, everything: Sequence[Result]) -> list[tuple[estimates.Estimate, str]]:
    """Returns the speed-up over the race's baseline, and that over the same backend and options in
    fp32, each with what stands behind it.
    """
    first = report.baseline(everything, result)
    own = next(
        (
            other
            for other in everything
            if other.race_id == result.race_id
            and other.case.spec == result.case.spec
            and other.case.precision == "fp32"
        ),
        None,
    )
    bases = [(first, ""), *([(own, " ÷ fp32")] if own is not first else [])]
    return [
        (estimates.inverse(estimates.ratio(latencies(base), latencies(result))), suffix)
        for base, suffix in bases
        if base is not None and base is not result and "latency" in base.metrics
    ]


def normal(result: Result) -> str:
    """Returns the reason without what differs from model to model, so that equal ones share a
    line; how wide an interval is stands in its cell.
    """
    assert result.reason is not None
    detail = re.sub(rf"(?<![\w.:]){re.escape(result.case.workload)}(?!\w)", "the model", result.reason.detail)
    if result.reason.code == "wide_interval":
        detail = re.sub(r"known to \d+% only", "known to its ± only", detail)
    return report.reason(msgspec.structs.replace(result, reason=Reason(result.reason.code, detail)))


def latencies(result: Result) -> tuple[tuple[float, ...], ...]:
    """Returns the samples of the latency in s, one tuple a block."""
    return result.metrics["latency"].values
