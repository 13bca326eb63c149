"""github-action-benchmark: data.js of its pages, which holds every run, and the list of
customSmallerIsBetter. A run has one value a benchmark, and says nothing of the machine
(https://github.com/benchmark-action/github-action-benchmark).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec

from ..terms import stored
from ..terms.case import Better
from ..terms.reasons import Unreadable
from ..terms.units import BYTES
from . import samples
from .contents import Contents, fields_of
from .hotlap import by_name
from .side import FIGURE, LATENCY, UNREADABLE, Known, Side

TOOL = "github-action-benchmark"
ASSIGNMENT = b"window.BENCHMARK_DATA"
MARK = rb"window\.BENCHMARK_DATA|\"benches\"\s*:"
# The names of a unit of time, before a slash -> s.
SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "second": 1.0,
    "seconds": 1.0, "min": 60.0,
}  # fmt: skip
# Units of calls in a second, whose inverse is a latency.
CALLS = ("ops/sec", "ops/s", "iter/sec", "iter/s")
# How a unit ends of which more is better.
RATES = ("/s", "/sec", "/second")
# The tool of which more is better whatever its unit.
BIGGER = "customBiggerIsBetter"
# How the action writes a spread: before or after the value.
SPREAD = re.compile(r"^\s*(?:±|\+/-)\s*(?P<value>[0-9.,eE+-]+)\s*(?P<percent>%?)\s*$")


class _Bench(msgspec.Struct):
    name: str
    value: float
    unit: str = ""
    range: str | float | None = None


class _Commit(msgspec.Struct, frozen=True):
    id: str = ""
    timestamp: str = ""


class _Run(msgspec.Struct):
    benches: list[_Bench]
    commit: _Commit = _Commit()
    date: float = 0.0
    tool: str = ""


class _Pages(msgspec.Struct):
    entries: dict[str, list[_Run]]


def claims(contents: Contents) -> bool:
    if contents.items:
        return {"name", "value", "unit"} <= fields_of(contents.items[0]).keys()
    return "entries" in contents.fields or contents.text.lstrip().startswith(ASSIGNMENT)


def read(contents: Contents) -> list[Side]:
    """Returns a side a run, oldest first; runs of one commit and moment are one."""
    if contents.items:
        benches = [contents.decode(_Bench, item) for item in contents.items]
        return [Side(contents.path, by_name([_known(each, "", "") for each in benches]), tool=TOOL)]
    text = contents.text
    if not contents.fields:
        text = text.partition(b"=")[2].strip().removesuffix(b";")
    pages = contents.decode(_Pages, text)
    runs: dict[tuple[float, str], list[Known]] = {}
    for suite, entries in pages.entries.items():
        prefix = f"{stored.line(suite)}/" if len(pages.entries) > 1 else ""
        for run in entries:
            known = [_known(each, run.tool, run.commit.id, prefix) for each in run.benches]
            runs.setdefault((run.date, run.commit.id), []).extend(known)
    if not runs:
        raise Unreadable(f"{contents.path}: has no runs")
    return [
        Side(contents.path, by_name(known), _moment(date), tool=TOOL)
        for (date, _), known in sorted(runs.items(), key=lambda item: item[0][0])
    ]


def _known(bench: _Bench, tool: str, commit: str, prefix: str = "") -> Known:
    name = prefix + stored.line(bench.name)
    metric, unit, scale, better = meaning(bench.unit, tool)
    try:
        samples.check([bench.value])
        spread = _spread(bench.range, bench.value)
        value = 1 / bench.value if scale is None else bench.value * scale
        sample = samples.single(value, unit, better)
        if spread is not None:
            share = spread / bench.value
            sample = samples.of_error(value, share * value, samples.CERTAIN, unit, better)
    except ValueError as error:
        return Known(name, None, UNREADABLE, str(error), commit=commit)
    return Known(name, None, metrics={metric: sample}, commit=commit)


def meaning(unit: str, tool: str) -> tuple[str, str, float | None, Better]:
    """Returns metric, base unit, the factor to it (None: the inverse) and direction of a value with
    this unit.
    """
    unit, direction = unit.strip(), "higher" if tool == BIGGER else "lower"
    if unit.partition("/")[0] in SECONDS and direction == "lower":
        return LATENCY, "s", SECONDS[unit.partition("/")[0]], "lower"
    if unit in BYTES and direction == "lower":
        return "memory", "B", BYTES[unit], "lower"
    if unit in CALLS:
        return LATENCY, "s", None, "lower"
    if unit.endswith(RATES):
        return "throughput", "1/s", 1.0, "higher"
    return FIGURE, stored.line(unit, 30), 1.0, "higher" if direction == "higher" else "lower"


def _spread(text: str | float | None, value: float) -> float | None:
    """Returns the standard deviation that a range gives, in the value's unit; None without one."""
    if not isinstance(text, str) or not (match := SPREAD.match(text)):
        return float(text) if isinstance(text, (int, float)) else None
    try:
        number = float(match["value"].replace(",", ""))
    except ValueError:
        return None
    return number / 100 * abs(value) if match["percent"] else number


def _moment(milliseconds: float) -> str:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat() if milliseconds else ""
    except (ValueError, OverflowError, OSError):
        return ""
