"""go test: the text of `go test -bench`, as its author's benchstat reads it, and the same inside
`go test -json`. Lines of one name (-count=10) are repetitions of one process
(https://go.googlesource.com/proposal/+/master/design/14313-benchmark-format.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from ..terms import stored
from . import samples
from .contents import Contents
from .side import FIGURE, LATENCY, UNREADABLE, Known, Side, stated_fields

TOOL = "go test"
# The unit of a time.
TIME = "ns/op"
MARK = rb"(?m)^Benchmark\S*\s+\d+\s+\S+ \S+|\"Output\":\"Benchmark"
LINE = re.compile(r"^(?P<name>Benchmark\S*)\s+(?P<count>\d+)(?P<values>(?:\s+[0-9.eE+-]+ \S+)+)\s*$")
SETTING = re.compile(r"^(?P<key>[a-z][^\sA-Z]*):\s*(?P<value>.*)$")
# At the start of a line, or behind the name of the benchmark that it interrupts.
FAILED = re.compile(r"--- FAIL: (?P<name>Benchmark\S*)")
# What ends every name where more than one thread was used: their number.
THREADS = re.compile(r"-(\d{1,4})$")


class _Event(msgspec.Struct):
    """A line of `go test -json`."""

    Action: str = ""
    Package: str = ""
    Output: str = ""


def claims(contents: Contents) -> bool:
    if contents.items or (contents.fields and "Action" not in contents.fields):
        return False
    return re.search(MARK, contents.text) is not None


class _Row(NamedTuple):
    """One line of a benchmark: what it measured by unit, or None where it failed."""

    package: str
    name: str
    values: dict[str, float] | None


def read(contents: Contents) -> list[Side]:
    setting: dict[str, str] = {}
    rows = list[_Row]()
    for line in _lines(contents):
        package = setting.get("pkg", "")
        if match := SETTING.match(line):
            setting[match["key"]] = stored.line(match["value"].strip())
        elif match := FAILED.search(line):
            rows.append(_Row(package, match["name"], None))
        elif match := LINE.match(line):
            words = match["values"].split()
            values = {unit: _number(value) for value, unit in zip(words[::2], words[1::2], strict=True)}
            rows.append(_Row(package, match["name"], values))
    # A name of its own may end in a number as well: only one that all have in common is of threads.
    ends = {match[0] if (match := THREADS.search(row.name)) else "" for row in rows if row.values}
    threads = ends.pop() if len(ends) == 1 else ""
    by_case: dict[str, list[_Row]] = {}
    for row in rows:
        name = row.name.removesuffix(threads).removeprefix("Benchmark") or row.name
        by_case.setdefault(".".join(filter(None, (row.package, name))), []).append(row)
    machine = _machine(setting, threads.removeprefix("-") or "1")
    cases = {name: _known(name, machine, repeated) for name, repeated in by_case.items()}
    return [Side(contents.path, cases, tool=TOOL)]


def _known(name: str, machine: dict[str, str], rows: Sequence[_Row]) -> Known:
    measured = [row.values for row in rows if row.values is not None]
    if len(measured) < len(rows):
        return Known(name, machine, "failed", "go test says FAIL")
    # A benchmark may report a metric of its own instead of its time.
    unit = TIME if TIME in measured[0] else next(iter(measured[0]))
    try:
        values = [each[unit] for each in measured if unit in each]
        sample = (
            samples.of_process([value * 1e-9 for value in values])
            if unit == TIME
            else samples.of_process(values, stored.line(unit, 30))
        )
    except ValueError as error:
        return Known(name, machine, UNREADABLE, str(error))
    extras = {name: value for name, value in measured[-1].items() if name != unit}
    return Known(name, machine, metrics={LATENCY if unit == TIME else FIGURE: sample}, extras=extras)


def _lines(contents: Contents) -> Iterator[str]:
    """Yields the lines of text; of -json those that its events put together."""
    text = contents.text.decode(errors="replace")
    if not text.lstrip().startswith("{"):
        yield from text.splitlines()
        return
    outputs: dict[str, list[str]] = {}
    for line in text.splitlines():
        try:
            event = msgspec.json.decode(line, type=_Event)
        except stored.UNDECODABLE:
            continue  # what a build prints between the events
        if event.Action == "output":
            outputs.setdefault(event.Package, []).append(event.Output)
    for parts in outputs.values():
        yield from "".join(parts).splitlines()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _machine(setting: dict[str, str], threads: str) -> dict[str, str]:
    """Returns what the text says of the machine by the names of side.BLOCKING."""
    fields = {
        "machine": "/".join(filter(None, (setting.get("goos"), setting.get("goarch")))),
        "cpu": setting.get("cpu", ""),
        "cpus": threads,
    }
    return stated_fields(fields)
