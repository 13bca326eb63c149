"""A review as one HTML page that needs nothing else: no script, no network.

Names are escaped by the template.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...perf.reports.formats import WORD
from ...perf.terms import escape
from ...perf.terms.units import scaled
from ..facts import roofline
from ..facts.intervals import Intervals
from ..findings.bound import PARTS
from ..findings.diff import Diff, Moved
from ..findings.review import Review, Row
from ..tables.trace import NONE, Column, Kind
from .text import beyond_window, bound_by, machine, ns, stepped, trusted, uneven

# Pixels of a drawing, and columns of the one of the window.
WIDTH = 960
BAND = 60
BINS = 320
# Columns of the drawing of memory.
MEMORY_POINTS = 480
# Steps and shapes that are shown.
MOST_STEPS = 60
MOST_SHAPES = 40
# Characters of a name: templates of C++ run to thousands.
NAME = 400
# The style of each part.
CLASS = {part: part.replace(" ", "-") for part in PARTS}


def page(review: Review, compared: Diff | None = None) -> str:
    """Returns the page, in the order of the terminal's screen; long tables are folded."""
    trace, facts = review.trace, review.facts
    window = facts.line.window
    return escape.page(__package__, "review.html").render(
        file=Path(trace.path).name,
        device=machine(review),
        events=trace.events,
        gpu_events=len(trace.gpu),
        grades=trusted(review),
        said=review.trust.notes,
        whole=review.trust.whole,
        bound=review.bound,
        host=review.host,
        window=ns(review.bound.whole if review.bound else window),
        beyond=beyond_window(review) if review.bound else "",
        bound_by=bound_by(review.bound) if review.bound else "",
        parts=parts(review),
        density=density(review) if window else [],
        steps=steps(review) if trace.source != "tensorrt" else None,
        culprits=culprits(review),
        gaps=gaps(review),
        fixes=fixes(review),
        tables=[
            ("Operators", rows(review.operators, roofline.by_operator(review.attained))),
            ("Kernels", rows(review.kernels, {})),
        ],
        shapes=shapes(review),
        near=any(row.share is not None for row in review.attained),
        peak=roofline.device_peak(trace),
        memory=memory(review),
        compared=compared and difference(compared),
        width=WIDTH,
        band=BAND,
    )


def culprits(review: Review) -> list[dict[str, Any]]:
    return [
        {
            "label": cut(culprit.label),
            "blame": culprit.blame,
            "length": ns(culprit.length),
            "share": culprit.length / max(1, int(review.facts.idle.length.sum())),
            "gaps": culprit.gaps,
        }
        for culprit in review.culprits
    ]


def gaps(review: Review) -> list[dict[str, Any]]:
    return [
        {
            "start": ns(gap.start),
            "length": ns(gap.length),
            "blame": gap.blame,
            "ends": cut(gap.ends),
            "filled": [(cut(label), ns(length), length / gap.length) for label, length in gap.filled[:4]],
        }
        for gap in review.gaps
    ]


def fixes(review: Review) -> list[dict[str, Any]]:
    return [
        {
            "fix": fix,
            "ceiling": ns(fix.ceiling),
            "share": fix.ceiling / max(1, review.facts.span),
            "code": [cut(name) for name in fix.code],
        }
        for fix in review.fixes
    ]


def parts(review: Review) -> list[dict[str, Any]]:
    """Returns the parts of the bar, with offset and width in pixels.

    Both follow from the exact lengths, so that they add up to the whole.
    """
    window, before, bars = review.bound.whole if review.bound else 0, 0, []
    for part, length in (review.bound.parts if review.bound and window else {}).items():
        if length:
            bars.append(
                {
                    "name": part,
                    "css": CLASS[part],
                    "length": ns(length),
                    "ns": length,
                    "share": length / window,
                    "x": WIDTH * before / window,
                    "width": WIDTH * length / window,
                }
            )
        before += length
    return bars


def covered(busy: Intervals, edges: Column) -> Column:
    """Returns how much of each bin between two edges lies in the intervals, in ns."""
    before = np.concatenate([[0], np.cumsum(busy.end - busy.start)])
    begun = np.searchsorted(busy.start, edges, side="right")
    inside = (
        np.where(begun > 0, np.maximum(0, busy.end[np.maximum(begun, 1) - 1] - edges), 0)
        if len(busy.start)
        else np.zeros(len(edges), np.int64)
    )
    return np.asarray(np.diff(before[begun] - inside))


def density(review: Review) -> list[dict[str, Any]]:
    """Returns what the GPU did along the steps and its window, in columns stacked from below.

    They are computing, communicating and copying; what is left free was idle.
    """
    line, (start, end) = review.facts.line, review.facts.wall
    edges = start + (np.arange(BINS + 1, dtype=np.int64) * (end - start)) // BINS
    kernels = line.part(line.gpu.kind == Kind.KERNEL)
    computing = covered(line.part((line.gpu.kind == Kind.KERNEL) & ~line.collective), edges)
    layers = [
        computing,
        covered(kernels, edges) - computing,
        covered(line.busy, edges) - covered(kernels, edges),
    ]
    width, base, drawn = WIDTH / BINS, np.zeros(BINS), []
    for css, layer in zip(("compute", "exposed-comm", "exposed-copies"), layers, strict=True):
        height = BAND * layer / np.maximum(1, np.diff(edges))
        path = "".join(
            f"M{column * width:.1f} {BAND - low:.1f}v-{tall:.2f}h{width:.2f}v{tall:.2f}z"
            for column, (low, tall) in enumerate(zip(base, height, strict=True))
            if tall > 0
        )
        base = base + height
        drawn.append({"css": css, "path": path})
    return drawn


def steps(review: Review) -> dict[str, Any] | None:
    own = review.facts.steps[:MOST_STEPS]
    if not own:
        return None
    longest = max(step.dur for step in own) or 1
    width = WIDTH / len(own)
    bars = [
        {
            "x": number * width,
            "width": max(1.0, width - 2),
            "height": BAND * step.dur / longest,
            "busy": BAND * min(1.0, step.busy / longest),
            "text": f"{step.name}: {ns(step.dur)}, GPU busy {ns(step.busy)}",
        }
        for number, step in enumerate(own)
    ]
    return {
        "said": "; ".join([stepped([step.dur for step in review.facts.steps]), *uneven(review.facts.steps)]),
        "bars": bars,
        "more": len(review.facts.steps) - len(own),
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


def shapes(review: Review) -> list[dict[str, Any]]:
    """Returns the operators whose work follows from their shapes, each shape alone."""
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
        for row in review.attained[:MOST_SHAPES]
    ]


def memory(review: Review) -> dict[str, Any] | None:
    """Returns the allocated bytes of the GPU over time, the largest of each column."""
    own = review.trace.memory
    which = (own.device_type == 1) & (own.total != NONE)
    if not which.any() or review.peak_bytes is None:
        return None
    order = np.argsort(own.moment[which], kind="stable")
    moments, total = own.moment[which][order], own.total[which][order]
    columns = ((moments - moments[0]) * (MEMORY_POINTS - 1)) // max(1, int(moments[-1] - moments[0]))
    most = np.zeros(MEMORY_POINTS, np.int64)
    np.maximum.at(most, columns, total)
    filled = np.maximum.accumulate(np.where(most > 0, np.arange(MEMORY_POINTS), 0))
    height = BAND * most[filled] / max(1, review.peak_bytes)
    step = WIDTH / MEMORY_POINTS
    return {
        "peak": scaled(review.peak_bytes, "B"),
        "path": (
            f"M0 {BAND}"
            + "".join(f"L{column * step:.1f} {BAND - tall:.1f}" for column, tall in enumerate(height))
            + f"L{WIDTH} {BAND}z"
        ),
    }


def difference(diff: Diff) -> dict[str, Any]:
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
        "verdict": diff.verdict.verdict,
        "word": WORD[diff.verdict.verdict],
        "base": Path(diff.base.trace.path).name,
        "per": diff.per,
        "reasons": diff.verdict.reasons,
        "findings": [
            {
                "metric": finding.metric.replace("_", " "),
                "base": ns((finding.base or 0) * 1e9),
                "head": ns((finding.head or 0) * 1e9),
                "change": (finding.ratio or 1) - 1,
                "verdict": finding.verdict,
                "word": WORD[finding.verdict],
            }
            for finding in diff.verdict.findings
        ],
        "because": diff.because,
        "tables": [
            (title, moved(table))
            for title, table in (
                ("What operators are for", diff.kinds),
                ("Parts", diff.parts),
                ("Operators", diff.operators),
                ("Kernels", diff.kernels),
                ("While idle", diff.idle),
            )
        ],
    }


def cut(text: str) -> str:
    return text if len(text) <= NAME else text[: NAME - 1] + "…"
