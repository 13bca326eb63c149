"""The history as one HTML page that needs nothing else: no network, and one small script, which the
page's security policy knows by its hash. Without the script all but the single points is there.

Names are escaped by the template; the script shows them as text.
"""

from __future__ import annotations

import base64
import hashlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..reports.formats import WORD, amount, line, percent
from ..stats.changes import ChangePoint
from ..terms import escape, units
from ..terms.verdict import Verdict
from .acknowledged import Acknowledgements
from .archive import Point
from .series import Border, Series, alternation, where

SCRIPT = Path(__file__).with_name("history.js")
# Of a chart's coordinates, whole numbers: fine enough for thousands of points, short in the file.
WIDTH = 4000
HEIGHT = 1000
# Empty above and below the points, as a share of what they span.
AROUND = 0.1
# The same as a share of the highest: a level that holds still is to look like one.
LEAST_AROUND = 0.002
# Dates below a chart, at most.
DATES = 5
# Characters of a label across a chart: on a wide screen and on a phone, with some to spare.
DESK, PHONE = 100, 32
# What stands between the texts of points.
BETWEEN = "|"


def page(
    verdict: Verdict, all_series: Sequence[Series], borders: Sequence[Border], accepted: Acknowledgements
) -> str:
    """Returns the page: alarms first, then what changed, then the quiet series, folded."""
    order = ("confirmed", "provisional", "acknowledged", "")
    ranked = sorted(all_series, key=lambda series: (order.index(state(series, accepted)), not series.changes))
    script = SCRIPT.read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    runs: dict[str, int] = {}
    charts = [(series, chart(series, borders, accepted, runs)) for series in ranked]
    return escape.page(__package__, "history.html").render(
        verdict=verdict.verdict,
        word=WORD[verdict.verdict],
        reasons=verdict.reasons,
        alarms=[
            {"text": line(finding), "entry": finding.entry}
            for finding in verdict.findings
            if not finding.acknowledged
        ],
        acknowledged=[line(finding) for finding in verdict.findings if finding.acknowledged],
        borders=[
            {
                "where": where(border.at),
                "cases": border.cases,
                "changed": [(name, a, b) for name, (a, b) in border.changed.items()],
            }
            for border in borders
        ],
        moved=[drawn for series, drawn in charts if series.changes or series.young],
        quiet=[drawn for series, drawn in charts if not series.changes and not series.young],
        runs=joined(runs),
        width=WIDTH,
        height=HEIGHT,
        script=Markup(script),
        digest=f"sha256-{digest}",
    )


def state(series: Series, accepted: Acknowledgements) -> str:
    """Returns what a series' alarm is; nothing where there is none."""
    if series.alarm is None:
        return ""
    if accepted.reason(series.between(series.alarm)[1]):
        return "acknowledged"
    return "confirmed" if series.confirmed else "provisional"


def chart(
    series: Series, borders: Sequence[Border], accepted: Acknowledgements, runs: dict[str, int]
) -> dict[str, Any]:
    """Returns what the template draws of a series: paths over the number of the point on the x
    axis, labels by their share of the width and height, and what stands beside them.

    runs: the words for each run of the page -> its number; gets those of this series.
    """
    values = [point.value for point in series.points]
    paced = series.points[-1].kind == "paced"
    unit = "" if paced else series.points[-1].unit
    counted = series.exact and unit not in units.UNITS
    low, high = span(values, counted)

    def x(index: float) -> int:
        return round(WIDTH * (index + 0.5) / len(values))

    def y(value: float) -> int:
        return round(HEIGHT * (high - value) / (high - low))

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
    ticks = units.ticks(low, high, unit if unit in units.UNITS else "", whole=counted)
    return {
        "case": series.case,
        "metric": series.metric,
        "paced": paced,
        "state": state(series, accepted),
        "latest": words(last),
        "alternation": alternation(series, series.alternating) if series.alternating else "",
        "count": len(values),
        "first": where(first),
        "last": where(last),
        "low": amount(min(values), unit),
        "high": amount(max(values), unit),
        "dots": "".join(f"M{x(index)} {y(value)}h0" for index, value in enumerate(values)),
        "texts": joined(map(words, series.points)),
        "runs": " ".join(str(runs.setdefault(run(point), len(runs))) for point in series.points),
        "ticks": [{"y": y(value), "share": share(y(value), HEIGHT), "text": text} for value, text in ticks],
        "gutter": max(len(text) for _, text in ticks),
        "dates": [
            {"x": x(index), "share": share(x(index), WIDTH), "text": text, "between": number % 2}
            for number, (index, text) in enumerate(dates(series.points))
        ],
        "levels": levels,
        "changes": steps(series, x),
        "borders": [
            x(index + 0.5)
            for index, (a, b) in enumerate(pairwise(series.points))
            if any(a.measured < border.at.measured <= b.measured for border in borders)
        ],
    }


def span(values: Sequence[float], counted: bool) -> tuple[float, float]:
    """Returns the ends of the y axis. counted: of whole numbers, whose ticks are such too."""
    low, high = min(values), max(values)
    if counted:
        around = max(1.0, math.ceil(AROUND * (high - low)))
        low = max(0.0, low - around)
        return low, max(high + around, low + 2)
    around = max(AROUND * (high - low), LEAST_AROUND * abs(high)) or 1.0
    return low - around, high + around


def dates(points: Sequence[Point]) -> list[tuple[int, str]]:
    """Returns the first, the last and some points between, each with its day; with its time of day
    where all are of one day. None repeats the one before.
    """
    count = min(DATES, len(points))
    numbers = sorted({round(step * (len(points) - 1) / max(1, count - 1)) for step in range(count)})
    form = "%Y-%m-%d"
    days = [time.strftime(form, time.gmtime(point.measured)) for point in (points[0], points[-1])]
    if days[0] == days[1]:
        form = "%H:%M"
    texts = [time.strftime(form, time.gmtime(points[number].measured)) for number in numbers]
    return [
        (number, text)
        for number, text, before in zip(numbers, texts, ["", *texts], strict=False)
        if text != before
    ]


def steps(series: Series, x: Callable[[float], int]) -> list[dict[str, Any]]:
    """Returns the changes of level: where, in which direction, as a label where there is room for
    one, and in a line.
    """
    changes = [*series.changes, *([series.young] if series.young else [])]
    places = [x(change.index - 0.5) for change in changes]
    labels = [short(series, change) for change in changes]
    desk = with_room(dict(enumerate(zip(places, labels, strict=True))), DESK)
    phone = with_room(desk, PHONE)
    return [
        {
            "x": place,
            "share": share(place, WIDTH),
            "way": "worse" if series.worse(change) else "better",
            "label": label if number in desk else "",
            "between": number not in phone,
            "text": described(series, change),
        }
        for number, (change, place, label) in enumerate(zip(changes, places, labels, strict=True))
    ]


def short(series: Series, change: ChangePoint) -> str:
    """Returns a change of level as a label of the chart."""
    if not series.exact:
        return percent(1 + change.effect)
    return " to ".join(amount(level, series.points[-1].unit) for level in series.levels(change))


def with_room(labels: Mapping[int, tuple[int, str]], across: int) -> dict[int, tuple[int, str]]:
    """Returns the labels, each with its place, that have room beside each other where so many
    characters go across the chart; the newest comes first.
    """
    room, kept = math.inf, {}
    for number, (place, label) in sorted(labels.items(), reverse=True):
        width = (len(label) + 1) / across
        # As the template shifts it: at the left end all of it is to the right.
        start = place / WIDTH * (1 - width)
        if start + width <= room:
            room = start
            kept[number] = place, label
    return kept


def described(series: Series, change: ChangePoint) -> str:
    """Returns a change of level in one line."""
    before, after = (amount(value, series.points[-1].unit) for value in series.levels(change))
    how = "" if series.exact else f", {percent(1 + change.effect)}, p {change.p:.2g}"
    way = "worse" if series.worse(change) else "better"
    provisional = ", provisional" if change is series.young else ""
    return f"{where(series.points[change.index])}: {before} to {after}{how}, {way}{provisional}"


def words(point: Point) -> str:
    """Returns the value of a point."""
    value = amount(point.centre, point.unit)
    return f"{point.value:.4g} of the pace, {value}" if point.kind == "paced" else value


def run(point: Point) -> str:
    """Returns when a point was measured, and at which commit."""
    moment = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(point.measured))
    return f"{moment} {point.revision[:12]}".strip()


def share(place: int, whole: int) -> float:
    return round(100 * place / whole, 1)


def joined(texts: Iterable[str]) -> str:
    """Returns texts as one attribute of the page, which the script splits again."""
    return BETWEEN.join(text.replace(BETWEEN, " ") for text in texts)
