"""The history as one HTML page that needs nothing else: no script, no network.

Names are escaped by the template.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ..reports.formats import WORD, amount, line, percent
from ..stats.changes import ChangePoint
from ..terms import escape
from ..terms.verdict import Verdict
from .series import Border, Series, alternation, where

# Of a chart, in pixels: two fit below each other on a screen.
WIDTH = 800
HEIGHT = 150
# Around its points, in pixels.
MARGIN = 8
# Points that say what they are under the pointer: the latest, and those where a level changed. All
# others are dots of one path, or the page would be large.
NAMED = 10


def page(verdict: Verdict, all_series: Sequence[Series], borders: Sequence[Border]) -> str:
    """Returns the page: alarms first, then what changed, then the quiet series, folded."""
    ranked = sorted(
        all_series, key=lambda series: (not series.confirmed, series.alarm is None, not series.changes)
    )
    return escape.page(__package__, "history.html").render(
        verdict=verdict.verdict,
        word=WORD[verdict.verdict],
        reasons=verdict.reasons,
        alarms=[line(finding) for finding in verdict.findings],
        borders=[
            {
                "where": where(border.at),
                "cases": border.cases,
                "changed": [(name, a, b) for name, (a, b) in border.changed.items()],
            }
            for border in borders
        ],
        moved=[chart(series, borders) for series in ranked if series.changes or series.young],
        quiet=[chart(series, borders) for series in ranked if not series.changes and not series.young],
        width=WIDTH,
        height=HEIGHT,
    )


def chart(series: Series, borders: Sequence[Border]) -> dict[str, Any]:
    """Returns what the template draws of a series: paths in pixels, over the number of the point on
    the x axis, and what stands beside them.
    """
    values = [point.value for point in series.points]
    low, high = min(values), max(values)
    around = 0.1 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - around, high + around

    def x(index: float) -> float:
        return round(MARGIN + (WIDTH - 2 * MARGIN) * (index + 0.5) / len(values), 1)

    def y(value: float) -> float:
        return round(MARGIN + (HEIGHT - 2 * MARGIN) * (high - value) / (high - low), 1)

    edges = [
        0,
        *(change.index for change in series.changes),
        *([series.young.index] if series.young else []),
        len(values),
    ]
    levels = [
        (x(start - 0.5), x(end - 0.5), y(sum(values[start:end]) / (end - start)))
        for start, end in pairwise(edges)
    ]
    if two := series.alternating:
        levels = [(x(-0.5), x(len(values) - 0.5), y(level)) for level in (two.low, two.high)]
    first, last = series.points[0], series.points[-1]
    unit = last.unit if last.kind != "paced" else ""
    named = {*range(max(0, len(values) - NAMED), len(values)), *(change.index for change in series.changes)}
    return {
        "case": series.case,
        "metric": series.metric,
        "state": "confirmed" if series.confirmed else "provisional" if series.alarm else "",
        "latest": (
            amount(last.centre, last.unit)
            + (f", {last.value:.4g} of the pace" if last.kind == "paced" else "")
        ),
        "alternation": alternation(series, series.alternating) if series.alternating else "",
        "count": len(values),
        "first": where(first),
        "last": where(last),
        "low": amount(min(values), unit),
        "high": amount(max(values), unit),
        "dots": "".join(f"M{x(index)} {y(value)}h0" for index, value in enumerate(values)),
        "named": [
            {
                "x": x(index),
                "y": y(values[index]),
                "text": f"{where(series.points[index])}: {amount(series.points[index].centre, last.unit)}",
            }
            for index in sorted(named)
        ],
        "levels": levels,
        "changes": (
            [
                {"x": x(change.index - 0.5), "worse": series.worse(change), "text": described(series, change)}
                for change in series.changes
            ]
            + (
                [
                    {
                        "x": x(series.young.index - 0.5),
                        "worse": series.worse(series.young),
                        "text": f"{described(series, series.young)}, provisional",
                    }
                ]
                if series.young
                else []
            )
        ),
        "borders": [
            x(index + 0.5)
            for index, (a, b) in enumerate(pairwise(series.points))
            if any(a.measured < border.at.measured <= b.measured for border in borders)
        ],
    }


def described(series: Series, change: ChangePoint) -> str:
    """Returns a change of level in one line."""
    before, after = (amount(value, series.points[-1].unit) for value in series.levels(change))
    how = "" if series.exact else f", {percent(1 + change.effect)}, p {change.p:.2g}"
    return f"{where(series.points[change.index])}: {before} to {after}{how}"
