"""go test: the text of `go test -bench`, as its author's benchstat reads it, and the same inside
`go test -json`. Lines of one name (-count=10) are repetitions of one process
(https://go.googlesource.com/proposal/+/master/design/14313-benchmark-format.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from ..terms import stored
from . import samples
from .contents import Contents
from .side import LATENCY, UNREADABLE, Known, Side

TOOL = "go test"
MARK = rb"(?m)^Benchmark\S*\s+\d+\s+\S+ \S+|\"Output\":\"Benchmark"
LINE = re.compile(r"^(?P<name>Benchmark\S*)\s+(?P<count>\d+)(?P<values>(?:\s+[0-9.eE+-]+ \S+)+)\s*$")
SETTING = re.compile(r"^(?P<key>[a-z][^\sA-Z]*):\s*(?P<value>.*)$")
FAILED = re.compile(r"^--- FAIL: (?P<name>Benchmark\S*)")
# What ends a name where more than one thread was used: their number.
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


def read(contents: Contents) -> list[Side]:
    setting: dict[str, str] = {}
    values: dict[tuple[str, str], list[float]] = {}
    extras: dict[tuple[str, str], dict[str, float]] = {}
    machines: dict[tuple[str, str], dict[str, str]] = {}
    failed: set[tuple[str, str]] = set()
    for line in _lines(contents):
        if match := SETTING.match(line):
            setting[match["key"]] = stored.line(match["value"].strip())
        elif match := FAILED.match(line):
            failed.add((setting.get("pkg", ""), match["name"].removeprefix("Benchmark")))
        elif match := LINE.match(line):
            name = match["name"].removeprefix("Benchmark") or match["name"]
            threads = THREADS.search(name)
            key = setting.get("pkg", ""), THREADS.sub("", name)
            machines[key] = _machine(setting, threads[1] if threads else "1")
            words = match["values"].split()
            for value, unit in zip(words[::2], words[1::2], strict=True):
                if unit == "ns/op":
                    values.setdefault(key, []).append(_number(value) * 1e-9)
                else:
                    extras.setdefault(key, {})[unit] = _number(value)
    cases = {}
    for key in {**values, **dict.fromkeys(failed)}:
        name = ".".join(filter(None, key))
        machine, more = machines.get(key) or _machine(setting, ""), extras.get(key, {})
        if key in failed:
            cases[name] = Known(name, machine, "failed", "go test says FAIL")
            continue
        try:
            latency = samples.of_process(values[key])
            cases[name] = Known(name, machine, metrics={LATENCY: latency}, extras=more)
        except ValueError as error:
            cases[name] = Known(name, machine, UNREADABLE, str(error))
    return [Side(contents.path, cases, tool=TOOL)]


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
    return {name: value for name, value in fields.items() if value}
