"""The history as one HTML page that needs nothing else: no script, no network.

Names are escaped by the template.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ..reports.formats import WORD, amount, line, percent
from ..stats.changes import ChangePoint
from ..terms.verdict import Verdict
from .series import Border, Series, where

WIDTH, HEIGHT, MARGIN = 800, 150, 8
# Points that say what they are under the pointer: the latest, and those where a level changed. All
# others are dots of one path, or the page would be large.
NAMED = 10


def page(verdict: Verdict, found: Sequence[Series], borders: Sequence[Border]) -> str:
    """Alarms first, then what changed, then the quiet series, folded."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    ranked = sorted(found, key=lambda one: (not one.confirmed, one.alarm is None, not one.changes))
    template = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("history.html")
    return template.render(
        verdict=verdict.verdict,
        word=WORD[verdict.verdict],
        reasons=verdict.reasons,
        alarms=[line(one) for one in verdict.findings],
        borders=[
            {
                "where": where(one.at),
                "cases": one.cases,
                "changed": [(name, a, b) for name, (a, b) in one.changed.items()],
            }
            for one in borders
        ],
        moved=[chart(one, borders) for one in ranked if one.changes or one.young],
        quiet=[chart(one, borders) for one in ranked if not one.changes and not one.young],
        width=WIDTH,
        height=HEIGHT,
    )


def chart(one: Series, borders: Sequence[Border]) -> dict[str, Any]:
    """Paths in pixels, over time on the x axis by number of point, and what stands beside them."""
    values = [point.value for point in one.points]
    low, high = min(values), max(values)
    around = 0.1 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - around, high + around

    def x(index: float) -> float:
        return round(MARGIN + (WIDTH - 2 * MARGIN) * (index + 0.5) / len(values), 1)

    def y(value: float) -> float:
        return round(MARGIN + (HEIGHT - 2 * MARGIN) * (high - value) / (high - low), 1)

    edges = [
        0,
        *(change.index for change in one.changes),
        *([one.young.index] if one.young else []),
        len(values),
    ]
    levels = [
        (x(start - 0.5), x(end - 0.5), y(sum(values[start:end]) / (end - start)))
        for start, end in pairwise(edges)
    ]
    first, last = one.points[0], one.points[-1]
    unit = last.unit if last.kind != "paced" else ""
    named = {*range(max(0, len(values) - NAMED), len(values)), *(change.index for change in one.changes)}
    return {
        "case": one.case,
        "metric": one.metric,
        "state": "confirmed" if one.confirmed else "provisional" if one.alarm else "",
        "latest": (
            amount(last.centre, last.unit)
            + (f", {last.value:.4g} of the pace" if last.kind == "paced" else "")
        ),
        "count": len(values),
        "first": where(first),
        "last": where(last),
        "low": amount(min(values), unit),
        "high": amount(max(values), unit),
        "dots": "".join(f"M{x(at)} {y(value)}h0" for at, value in enumerate(values)),
        "named": [
            {
                "x": x(at),
                "y": y(values[at]),
                "text": f"{where(one.points[at])}: {amount(one.points[at].centre, last.unit)}",
            }
            for at in sorted(named)
        ],
        "levels": levels,
        "changes": (
            [
                {"x": x(change.index - 0.5), "worse": one.worse(change), "text": told(one, change)}
                for change in one.changes
            ]
            + (
                [
                    {
                        "x": x(one.young.index - 0.5),
                        "worse": one.worse(one.young),
                        "text": f"{told(one, one.young)}, provisional",
                    }
                ]
                if one.young
                else []
            )
        ),
        "borders": [
            x(at + 0.5)
            for at, (a, b) in enumerate(pairwise(one.points))
            if any(a.measured < border.at.measured <= b.measured for border in borders)
        ],
    }


def told(one: Series, change: ChangePoint) -> str:
    before, after = (amount(value, one.points[-1].unit) for value in one.levels(change))
    how = "" if one.exact else f", {percent(1 + change.effect)}, p {change.p:.2g}"
    return f"{where(one.points[change.index])}: {before} to {after}{how}"
