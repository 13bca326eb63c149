"""github-action-benchmark: data.js of its pages, which holds every run, and the list of
customSmallerIsBetter. A run has one value a benchmark, and says nothing of the machine
(https://github.com/benchmark-action/github-action-benchmark).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from ..terms import stored
from ..terms.case import Better
from ..terms.reasons import Unreadable
from ..terms.units import BYTES
from . import samples
from .contents import Contents, fields_of
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
# The tools of which more, or less, is better whatever the unit.
BIGGER, SMALLER = "customBiggerIsBetter", "customSmallerIsBetter"
# How the action writes a spread: before or after the value.
SPREAD = re.compile(r"^\s*(?:±|\+/-)\s*(?P<value>[0-9.,eE+-]+)\s*(?P<percent>%?)\s*$")
# The same of pytest-benchmark: in seconds, beside a value in calls a second.
DEVIATION = re.compile(r"^\s*stddev:\s*(?P<value>[0-9.eE+-]+)\s*$")


class _Name(msgspec.Struct):
    name: str


class _Bench(_Name):
    value: float
    unit: str = ""
    range: str | float | None = None


class _Commit(msgspec.Struct, frozen=True):
    id: str = ""
    timestamp: str = ""


class _Run(msgspec.Struct):
    benches: list[msgspec.Raw]
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
    """Returns a side a commit and run of it, oldest first; suites are stored one by one."""
    if contents.items:
        benches = _benches(contents, contents.items, "")
        return [Side(contents.path, _cases(benches, "", ""), tool=TOOL)]
    text = contents.text
    if not contents.fields:
        text = text.partition(b"=")[2].strip().removesuffix(b";")
    pages = contents.decode(_Pages, text)
    runs: dict[tuple[str, int], tuple[float, dict[str, Known]]] = {}
    for suite, entries in pages.entries.items():
        prefix = f"{stored.line(suite)}/" if len(pages.entries) > 1 else ""
        seen: dict[str, int] = {}
        for run in entries:
            commit = run.commit.id
            key = commit, seen.setdefault(commit, 0)
            seen[commit] += 1
            date, cases = runs.get(key, (run.date, {}))
            cases |= _cases(_benches(contents, run.benches, prefix), run.tool, commit)
            runs[key] = max(date, run.date), cases
    if not runs:
        raise Unreadable(f"{contents.path}: has no runs")
    return [
        Side(contents.path, cases, _moment(date), tool=TOOL)
        for date, cases in sorted(runs.values(), key=lambda run: run[0])
    ]


def _benches(contents: Contents, parts: Sequence[msgspec.Raw], prefix: str) -> dict[str, list[_Bench | str]]:
    """Returns by name what was stored of each benchmark, several times where it was repeated; of
    what cannot be read why.
    """
    benches: dict[str, list[_Bench | str]] = {}
    for part in parts:
        name = prefix + stored.line(contents.decode(_Name, part).name)
        try:
            benches.setdefault(name, []).append(msgspec.json.decode(part, type=_Bench))
        except stored.UNDECODABLE as error:
            benches.setdefault(name, []).append(stored.line(error))
    return benches


def _cases(benches: Mapping[str, Sequence[_Bench | str]], tool: str, commit: str) -> dict[str, Known]:
    return {name: _known(name, repeated, tool, commit) for name, repeated in benches.items()}


def _known(name: str, benches: Sequence[_Bench | str], tool: str, commit: str) -> Known:
    if wrong := next((bench for bench in benches if isinstance(bench, str)), ""):
        return Known(name, None, UNREADABLE, wrong, commit=commit)
    repeated = [bench for bench in benches if isinstance(bench, _Bench)]
    first = repeated[0]
    metric, unit, scale, better = meaning(first.unit, tool)
    try:
        samples.check([bench.value for bench in repeated])
        values = [1 / bench.value if scale is None else bench.value * scale for bench in repeated]
        share = _spread(first.range, first.value, scale is None)
        sample = samples.single(values[0], unit, better)
        if len(values) > 1:
            sample = samples.of_process(values, unit, better)
        elif share is not None:
            sample = samples.of_error(values[0], share * values[0], samples.CERTAIN, unit, better)
    except (ValueError, OverflowError) as error:
        return Known(name, None, UNREADABLE, str(error), commit=commit)
    return Known(name, None, metrics={metric: sample}, commit=commit)


def meaning(unit: str, tool: str) -> tuple[str, str, float | None, Better]:
    """Returns metric, base unit, the factor to it (None: the inverse) and direction of a value with
    this unit.
    """
    unit = unit.strip()
    if unit.partition("/")[0] in SECONDS and tool != BIGGER:
        return LATENCY, "s", SECONDS[unit.partition("/")[0]], "lower"
    if unit in BYTES and tool != BIGGER:
        return "memory", "B", BYTES[unit], "lower"
    if unit in CALLS and tool != SMALLER:
        return LATENCY, "s", None, "lower"
    return FIGURE, stored.line(unit, 30), 1.0, "higher" if tool == BIGGER else "lower"


def _spread(text: str | float | None, value: float, rate: bool) -> float | None:
    """Returns the standard deviation that a range gives, as a share of the value; None without one.

    rate: whether the value is of calls a second.
    """
    if isinstance(text, (int, float)):
        return abs(text / value)
    if not text or not (match := SPREAD.match(text) or DEVIATION.match(text)):
        return None
    try:
        number = abs(float(match["value"].replace(",", "")))
    except ValueError:
        return None
    if match.re is DEVIATION:
        return number * value if rate else number / value
    return number / 100 if match["percent"] else number / value


def _moment(milliseconds: float) -> str:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat() if milliseconds else ""
    except (ValueError, OverflowError, OSError):
        return ""
