"""Runs as one HTML page that needs nothing else: no script, no network.

Names are escaped by the template; what is drawn is a picture in it, light and dark.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from ..perf.terms import escape
from . import class_report, pictures, records
from .records import StoredTraining
from .tables import against, number


def page(chosen: Sequence[StoredTraining]) -> str:
    """Returns the page of one run, or of what several do not share."""
    alone = len(chosen) == 1
    return escape.page(__package__, "page.html").render(
        title=chosen[0].id if alone else f"{len(chosen)} runs",
        runs=[summary(record, index) for index, record in enumerate(chosen)],
        alone=alone,
        themes=(pictures.LIGHT, pictures.DARK),
        unfinished=not all(record.finished for record in chosen),
        splits=["validation split", *(["test split"] if tested(chosen) else [])],
        scores=scores(chosen),
        pictures=[drawn(panel) for panel in pictures.panels(chosen)],
        classes=classes(chosen[0]) if alone else [],
        promoted=[(key, [records.text(value)]) for key, value in chosen[0].promoted.items()] if alone else [],
        settings=rows(chosen, "configuration"),
        places=rows(chosen, "environment"),
    )


def summary(record: StoredTraining, index: int) -> dict[str, Any]:
    color = index % len(pictures.LIGHT.lines)
    return {
        "id": record.id,
        "name": record.settings.name,
        "state": record.state,
        "began": record.began,
        "time": f"{record.seconds:.0f} s" if record.finished else f"step {record.last_step}",
        "color": color,
        "mark": pictures.MARKS[pictures.mark(index)],
    }


def tested(chosen: Sequence[StoredTraining]) -> bool:
    """Whether the scores on the test split are shown: those of a promoted run alone."""
    return len(chosen) == 1 and bool(chosen[0].promoted and chosen[0].test)


def scores(chosen: Sequence[StoredTraining]) -> list[tuple[str, list[str]]]:
    """Returns metric and cells: a split each of one run, of several how far each is above the
    first.
    """
    first = chosen[0]
    table = []
    for metric in dict.fromkeys(metric for record in chosen for metric in record.validation):
        value = first.validation.get(metric)
        cells = [number(value), *(against(value, record.validation.get(metric)) for record in chosen[1:])]
        table.append((metric, [*cells, *([number(first.test.get(metric))] if tested(chosen) else [])]))
    return table


def drawn(panel: pictures.Panel) -> dict[str, str]:
    """Returns a panel as addresses of two pictures that hold their own data, and its words."""
    light, dark = (
        "data:image/svg+xml;base64," + base64.b64encode(pictures.svg(panel, theme)).decode()
        for theme in (pictures.LIGHT, pictures.DARK)
    )
    return {"light": light, "dark": dark, "words": panel.words}


def classes(record: StoredTraining) -> list[list[str]]:
    """Returns a row a class: its number, samples, precision, recall, F1; empty for what is no
    classifier.
    """
    report = class_report.read(record.folder, "validation")
    if report is None:
        return []
    parts = zip(report.confusion, report.precision, report.recall, report.f1, strict=True)
    return [[str(label), str(sum(counts)), *map(number, each)] for label, (counts, *each) in enumerate(parts)]


def rows(chosen: Sequence[StoredTraining], part: str) -> list[tuple[str, list[str]]]:
    """Returns key and values: of one run all that are set, of several those that they do not share.

    part: configuration or environment.
    """
    if len(chosen) > 1:
        differing = records.differences(chosen, part)
        return [(key, [records.text(value) for value in values]) for key, values in differing.items()]
    content: dict[str, Any] = getattr(chosen[0], part)
    return [(key, [records.text(value)]) for key, value in content.items() if value not in (None, "")]
