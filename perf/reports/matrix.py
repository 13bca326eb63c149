"""Models x backends x precisions as Markdown: a table for each target and precision, no cell empty,
every reason once below.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set

from ..lookup.cases import PACE
from ..oracle import ladder
from ..stats import estimates
from ..terms.case import PRECISIONS
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
    """Of a results file, in the order in which it was asked for.

    Case ids with options stand in columns of their own.
    """
    order = {case: place for place, case in enumerate(results.asked)}
    shown = sorted(
        (one for one in results.results if one.case.backend != PACE),
        key=lambda one: order.get(one.case, len(order)),
    )
    notes: dict[str, int] = {}
    pending = set(results.asked) - {one.case for one in shown}
    lines = [*(f"{line}." for line in report.setting(results)), ""]
    for target in dict.fromkeys(one.case.target for one in shown):
        for precision in PRECISIONS:
            group = [one for one in shown if one.case.target == target and one.case.precision == precision]
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
    if rungs := sorted({one.verified_to for one in shown if one.status == "verified"}):
        lines += [f"Rungs: {', '.join(f'{rung} {ladder.MEANING[rung]}' for rung in rungs)}.", ""]
    lines += [f"{number}. {text}" for text, number in notes.items()]
    return "\n".join(lines).rstrip() + "\n"


def batches(group: Sequence[Result]) -> str:
    return ", ".join(str(size) for size in sorted({one.case.batch for one in group}))


def table(
    group: Sequence[Result],
    everything: Sequence[Result],
    title: str,
    notes: dict[str, int],
    waiting: Set[tuple[str, int, str]],
) -> list[str]:
    """waiting: what was asked for of this target and precision and has no result yet."""
    columns = list(dict.fromkeys(one.case.spec for one in group))
    rows = list(dict.fromkeys((one.case.workload, one.case.batch) for one in group))
    several = len({size for _, size in rows}) > 1
    found = {(one.case.workload, one.case.batch, one.case.spec): one for one in group}
    lines = [f"**{title}**", "", f"| model | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, size in rows:
        keys = [(name, size, head) for head in columns]
        cells = [
            (
                cell(found[key], everything, notes)
                if key in found
                else "not yet"
                if key in waiting
                else "not asked"
            )
            for key in keys
        ]
        lines.append(
            f"| {name.rpartition(':')[2] if '.' in name else name}{f' b{size}' if several else ''} |"
            f" {' | '.join(cells)} |"
        )
    return lines


def cell(one: Result, everything: Sequence[Result], notes: dict[str, int]) -> str:
    """Status first where it is not ok; then what was measured or proven."""
    parts: list[str] = []
    if one.status == "verified":
        parts.append(one.verified_to)
    elif one.reason is not None:
        number = notes.setdefault(normal(one), len(notes) + 1)
        proven = f", {one.verified_to}" if one.proofs else ""
        parts.append(
            f"noisy ({number})"
            if one.status == "noisy"
            else f"{one.status}: {one.reason.code} ({number}){proven}"
        )
    latency = one.metrics.get("latency")
    if latency is not None:
        parts.append(report.with_width(latency.estimate, scaled(latency.centre, "s")))
        parts += [
            report.with_width(found, f"{found.centre:.2f}x") + suffix
            for found, suffix in speedups(one, everything)
        ]
    if "build" in one.build_s and one.placement is not None:
        counters = one.placement.counters
        size = counters.get("engine_bytes", counters["artefact_bytes"])
        parts.append(f"{scaled(one.build_s['build'], 's')}, {scaled(size, 'B')}")
    parts += [text for text in (report.deviation(one), report.task(one)) if text]
    return "; ".join(parts)


def speedups(one: Result, everything: Sequence[Result]) -> list[tuple[estimates.Estimate, str]]:
    """Over the race's baseline, and over the same backend and options in fp32."""
    first = report.baseline(everything, one)
    own = next(
        (
            other
            for other in everything
            if other.race_id == one.race_id
            and other.case.spec == one.case.spec
            and other.case.precision == "fp32"
        ),
        None,
    )
    bases = [(first, ""), *([(own, " ÷ fp32")] if own is not first else [])]
    return [
        (estimates.inverse(estimates.ratio(latencies(base), latencies(one))), suffix)
        for base, suffix in bases
        if base is not None and base is not one and "latency" in base.metrics
    ]


def normal(one: Result) -> str:
    """The reason without what differs from model to model, so that equal ones share a line; how
    wide an interval is stands in its cell.
    """
    assert one.reason is not None
    detail = re.sub(rf"(?<![\w.:]){re.escape(one.case.workload)}(?!\w)", "the model", one.reason.detail)
    if one.reason.code == "wide_interval":
        detail = re.sub(r"known to \d+% only", "known to its ± only", detail)
    return f"{one.status}: {one.reason.code}: {detail}"


def latencies(result: Result) -> tuple[tuple[float, ...], ...]:
    """Samples of the latency in s, one tuple a block."""
    return result.metrics["latency"].values
