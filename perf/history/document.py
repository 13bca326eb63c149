"""What `hotlap history` writes and prints of its series: JSON beside the verdict, lines for a
person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..reports.formats import amount, percent
from ..reports.output import show
from ..terms import printer
from ..terms.verdict import Verdict
from .series import Border, Series, alternation, where
from .together import NAME


def document(
    verdict: Verdict,
    all_series: Sequence[Series],
    borders: Sequence[Border],
    settings: Mapping[str, Mapping[str, str]],
    problems: Mapping[str, str],
) -> bytes:
    """Returns the verdict as JSON, which `hotlap gate --with` takes, and beside it every series.

    settings, problems: as in StoredPoints.
    """
    content = msgspec.to_builtins(verdict)
    content["series"] = [of_series(series) for series in all_series]
    keys = [series.points[-1].setting for series in all_series]
    content["settings"] = {key: settings[key] for key in keys}
    content["borders"] = [
        {
            "measured": border.at.measured,
            "commit": border.at.revision,
            "cases": border.cases,
            "changed": border.changed,
        }
        for border in borders
    ]
    content["not_results"] = {Path(path).name: why for path, why in problems.items()}
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


def of_series(series: Series) -> dict[str, Any]:
    """Returns what the JSON holds of one series."""
    last = series.points[-1]
    return {
        "case": series.case,
        "metric": series.metric,
        "kind": last.kind,
        "unit": last.unit,
        "better": series.better,
        "setting": last.setting,
        "points": [
            {
                "measured": point.measured,
                "commit": point.revision,
                "value": point.value,
                "centre": point.centre,
            }
            for point in series.points
        ],
        "change_points": series.changes,
        "provisional": series.young,
        "alternating": series.alternating,
    }


def show_series(
    verdict: Verdict, all_series: Sequence[Series], borders: Sequence[Border], files: str
) -> None:
    """Prints what has changed, oldest first; then the alarms; then the verdict as the last line.

    files: words for how many there were.
    """
    for border in borders:
        changed = ", ".join(f"{name} {a} -> {b}" for name, (a, b) in border.changed.items())
        cases = f"{border.cases} case{'s' if border.cases > 1 else ''}"
        printer.line(f"  {where(border.at)}: environment of {cases}: {changed}")
    for series in all_series:
        for change in series.changes:
            unit = series.points[-1].unit
            before, after = (amount(level, unit) for level in series.levels(change))
            how = "" if series.exact else f" ({percent(1 + change.effect)}, p {change.p:.2g})"
            worse = "worse" if series.worse(change) else "better"
            name = f"{where(series.points[change.index])}: {series.case}: {series.metric}"
            printer.line(f"  {name} {before} -> {after}{how}, {worse}")
        if series.alternating is not None:
            printer.line(f"  {series.case}: {series.metric}: {alternation(series, series.alternating)}")
    show(verdict)
    names = {series.case for series in all_series} - {NAME}
    printer.line(f"{len(all_series)} series of {len(names)} cases from {files}")
