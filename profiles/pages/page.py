"""A review as one HTML page that needs nothing else: no script, no network.

Names are escaped by the template.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...perf.reports.formats import WORD
from ...perf.terms.units import scaled
from ..facts import roofline
from ..facts.intervals import Intervals
from ..findings.bound import PARTS
from ..findings.diff import Diff, Moved
from ..findings.review import Review, Row
from ..tables.trace import NONE, Column, Kind
from .text import machine, ns, stepped, trusted

WIDTH, BINS, BAND = 960, 320, 60
MOST_STEPS, MEMORY_POINTS, MOST_SHAPES = 60, 480, 40
NAME = 400
CLASS = {part: part.replace(" ", "-") for part in PARTS}


def page(found: Review, compared: Diff | None = None) -> str:
    """In the order of the terminal's screen; long tables are folded."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    template = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("review.html")
    trace, facts = found.trace, found.facts
    window = facts.line.window
    return template.render(
        file=Path(trace.path).name,
        device=machine(found),
        events=trace.events,
        gpu_events=len(trace.gpu),
        grades=trusted(found),
        said=found.trust.said,
        whole=found.trust.whole,
        bound=found.bound,
        host=found.host,
        window=ns(window),
        parts=parts(found),
        density=density(found) if window else [],
        steps=steps(found) if trace.source != "tensorrt" else None,
        culprits=[
            {
                "label": cut(one.label),
                "blame": one.blame,
                "length": ns(one.length),
                "share": one.length / max(1, facts.line.idle),
                "gaps": one.gaps,
            }
            for one in found.culprits
        ],
        gaps=[
            {
                "at": ns(one.start),
                "length": ns(one.length),
                "blame": one.blame,
                "ends": cut(one.ends),
                "filled": [(cut(label), ns(length), length / one.length) for label, length in one.filled[:4]],
            }
            for one in found.gaps
        ],
        fixes=[
            {
                "fix": one,
                "ceiling": ns(one.ceiling),
                "share": one.ceiling / max(1, facts.span),
                "code": [cut(name) for name in one.code],
            }
            for one in found.fixes
        ],
        tables=[
            ("Operators", rows(found.operators, roofline.by_operator(found.attained))),
            ("Kernels", rows(found.kernels, {})),
        ],
        shapes=shapes(found),
        near=any(row.share is not None for row in found.attained),
        peak=roofline.device_peak(trace),
        memory=memory(found),
        compared=compared and difference(compared),
        width=WIDTH,
        band=BAND,
    )


def parts(found: Review) -> list[dict[str, Any]]:
    """Of the one bar: offsets and widths in pixels, from the exact lengths, so that they add up to
    the window.
    """
    window, at, made = found.facts.line.window, 0, []
    for part, length in (found.bound.parts if found.bound and window else {}).items():
        if length:
            made.append(
                {
                    "name": part,
                    "css": CLASS[part],
                    "length": ns(length),
                    "ns": length,
                    "share": length / window,
                    "x": WIDTH * at / window,
                    "width": WIDTH * length / window,
                }
            )
        at += length
    return made


def covered(busy: Intervals, edges: Column) -> Column:
    """How much of each bin between two edges lies in the intervals."""
    before = np.concatenate([[0], np.cumsum(busy.end - busy.start)])
    at = np.searchsorted(busy.start, edges, side="right")
    inside = (
        np.where(at > 0, np.maximum(0, busy.end[np.maximum(at, 1) - 1] - edges), 0)
        if len(busy.start)
        else np.zeros(len(edges), np.int64)
    )
    return np.asarray(np.diff(before[at] - inside))


def density(found: Review) -> list[dict[str, Any]]:
    """What the GPU did along the window, in columns stacked from below: computing, communicating,
    copying; what is left free was idle.
    """
    line = found.facts.line
    edges = line.start + (np.arange(BINS + 1, dtype=np.int64) * line.window) // BINS
    kernels = line.part(line.gpu.kind == Kind.KERNEL)
    computing = covered(line.part((line.gpu.kind == Kind.KERNEL) & ~line.collective), edges)
    layers = [
        computing,
        covered(kernels, edges) - computing,
        covered(line.busy, edges) - covered(kernels, edges),
    ]
    width, base, made = WIDTH / BINS, np.zeros(BINS), []
    for css, layer in zip(("compute", "exposed-comm", "exposed-copies"), layers, strict=True):
        height = BAND * layer / np.maximum(1, np.diff(edges))
        path = "".join(
            f"M{at * width:.1f} {BAND - low:.1f}v-{tall:.2f}h{width:.2f}v{tall:.2f}z"
            for at, (low, tall) in enumerate(zip(base, height, strict=True))
            if tall > 0
        )
        base = base + height
        made.append({"css": css, "path": path})
    return made


def steps(found: Review) -> dict[str, Any] | None:
    own = found.facts.steps[:MOST_STEPS]
    if not own:
        return None
    longest = max(step.dur for step in own) or 1
    width = WIDTH / len(own)
    bars = [
        {
            "x": at * width,
            "width": max(1.0, width - 2),
            "height": BAND * step.dur / longest,
            "busy": BAND * min(1.0, step.busy / longest),
            "text": f"{step.name}: {ns(step.dur)}, GPU busy {ns(step.busy)}",
        }
        for at, step in enumerate(own)
    ]
    return {
        "said": stepped([step.dur for step in found.facts.steps]),
        "bars": bars,
        "more": len(found.facts.steps) - len(own),
    }


def rows(table: list[Row], near: dict[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "name": cut(row.name),
            "events": row.events,
            "length": ns(row.length),
            "share": row.share,
            "near": near.get(row.name),
        }
        for row in table
    ]


def shapes(found: Review) -> list[dict[str, Any]]:
    """Operators whose work follows from their shapes, each shape alone."""
    return [
        {
            "name": row.name,
            "dims": row.dims,
            "precision": row.precision,
            "calls": row.calls,
            "length": ns(row.length),
            "near": row.share,
            "why": row.why,
            "rate": scaled(row.flops / row.length * 1e9, "FLOP/s") if row.length and row.flops else "",
        }
        for row in found.attained[:MOST_SHAPES]
    ]


def memory(found: Review) -> dict[str, Any] | None:
    """Allocated bytes of the GPU over time, the largest of each column."""
    own = found.trace.memory
    which = (own.device_type == 1) & (own.total != NONE)
    if not which.any() or found.peak_bytes is None:
        return None
    order = np.argsort(own.at[which], kind="stable")
    at, total = own.at[which][order], own.total[which][order]
    column = ((at - at[0]) * (MEMORY_POINTS - 1)) // max(1, int(at[-1] - at[0]))
    most = np.zeros(MEMORY_POINTS, np.int64)
    np.maximum.at(most, column, total)
    filled = np.maximum.accumulate(np.where(most > 0, np.arange(MEMORY_POINTS), 0))
    height = BAND * most[filled] / max(1, found.peak_bytes)
    step = WIDTH / MEMORY_POINTS
    return {
        "peak": scaled(found.peak_bytes, "B"),
        "path": (
            f"M0 {BAND}"
            + "".join(f"L{at * step:.1f} {BAND - tall:.1f}" for at, tall in enumerate(height))
            + f"L{WIDTH} {BAND}z"
        ),
    }


def difference(found: Diff) -> dict[str, Any]:
    def moved(table: list[Moved]) -> list[dict[str, Any]]:
        shown = sorted((row for row in table if row.change), key=lambda row: -abs(row.change))
        return [
            {
                "name": cut(row.where),
                "worse": row.change > 0,
                "change": ns(abs(row.change)),
                "before": ns(row.before),
                "after": ns(row.after),
                "times": row.times.lstrip(", "),
            }
            for row in shown
        ]

    return {
        "verdict": found.verdict.verdict,
        "word": WORD[found.verdict.verdict],
        "base": Path(found.base.trace.path).name,
        "per": found.per,
        "reasons": found.verdict.reasons,
        "findings": [
            {
                "metric": one.metric.replace("_", " "),
                "base": ns((one.base or 0) * 1e9),
                "head": ns((one.head or 0) * 1e9),
                "change": (one.ratio or 1) - 1,
                "verdict": one.verdict,
                "word": WORD[one.verdict],
            }
            for one in found.verdict.findings
        ],
        "because": found.because,
        "tables": [
            (title, moved(table))
            for title, table in (
                ("What operators are for", found.kinds),
                ("Parts", found.parts),
                ("Operators", found.operators),
                ("Kernels", found.kernels),
                ("While idle", found.idle),
            )
        ],
    }


def cut(text: str) -> str:
    return text if len(text) <= NAME else text[: NAME - 1] + "…"
