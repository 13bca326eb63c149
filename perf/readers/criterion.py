"""criterion.rs: its folder (target/criterion, or that of one benchmark), what
`cargo criterion --message-format=json` prints, and what `critcmp --export` writes. None of them
says which machine it was (https://bheisler.github.io/criterion.rs/book).
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from ..terms import stored
from ..terms.reasons import Unreadable
from . import samples
from .contents import Contents
from .contents import contents as opened
from .google_benchmark import SECONDS
from .hotlap import by_name
from .side import LATENCY, UNREADABLE, Known, Sample, Side

TOOL = "criterion"
MARK = rb'"benchmark-complete"|"criterion_estimates_v1"|"point_estimate"\s*:'
# The folder of the newest measurement of a benchmark.
NEWEST = "new"
# Its files: what it is called, what was estimated, the samples.
BENCHMARK, ESTIMATES, SAMPLE = "benchmark.json", "estimates.json", "sample.json"
# Of an estimate of a hundred samples, as criterion takes by default.
FREEDOM = 99


class _Estimate(msgspec.Struct):
    """Of a time, ns."""

    point_estimate: float
    standard_error: float = 0.0


class _Estimates(msgspec.Struct):
    mean: _Estimate
    slope: _Estimate | None = None

    @property
    def typical(self) -> _Estimate:
        """As criterion prints it: the slope over growing numbers of calls, where there is one."""
        return self.slope or self.mean


class _Sample(msgspec.Struct):
    """Numbers of calls, and the time of all of them, ns."""

    iters: list[float]
    times: list[float]


class _Identity(msgspec.Struct):
    full_id: str


class _Message(msgspec.Struct):
    reason: str
    id: str = ""
    iteration_count: list[float] = []
    measured_values: list[float] = []
    unit: str = "ns"


class _Exported(msgspec.Struct):
    fullname: str
    criterion_estimates_v1: _Estimates


def claims(contents: Contents) -> bool:
    if contents.fields:
        return (
            {"mean", "median", "std_dev"} <= contents.fields.keys()
            or (
                {"name", "benchmarks"} == contents.fields.keys()
                and b"criterion_estimates_v1" in contents.start
            )
            or "reason" in contents.fields
        )
    return bool(contents.problem) and b'"benchmark-complete"' in contents.text


def read(contents: Contents) -> list[Side]:
    if "benchmarks" in contents.fields:
        exported = contents.part(dict[str, _Exported], "benchmarks", {})
        cases = [_known(each.fullname, each.criterion_estimates_v1) for each in exported.values()]
    elif "mean" in contents.fields:
        cases = [of_folder(contents.path.parent)]
    else:
        cases = [_of_message(message) for message in _messages(contents)]
    return [Side(contents.path, by_name(cases), tool=TOOL)]


def is_folder(path: Path) -> bool:
    """Returns whether a folder holds measurements of criterion."""
    return next(_measurements(path), None) is not None


def read_folder(path: Path) -> Side:
    """Returns the newest measurement of each benchmark below a folder. Raises Unreadable."""
    places = sorted(_measurements(path))
    digest = sha256()
    for file in (place / name for place in places for name in (ESTIMATES, SAMPLE)):
        if file.is_file():
            digest.update(stored.content(file))
    cases = by_name([_of_place(place) for place in places])
    return Side(path, cases, tool=TOOL, digests=(digest.hexdigest(),))


def _of_place(path: Path) -> Known:
    """Returns one measurement of many: a damaged one takes no other along."""
    try:
        return of_folder(path)
    except Unreadable as error:
        return Known(path.parent.name, None, UNREADABLE, str(error))


def _measurements(path: Path) -> Iterator[Path]:
    return (file.parent for file in path.rglob(f"{NEWEST}/{ESTIMATES}") if file.is_file())


def of_folder(path: Path) -> Known:
    """Returns one measurement: of its samples where they are there."""
    name = path.parent.name
    if (path / BENCHMARK).is_file():
        name = stored.line(opened(path / BENCHMARK).decode(_Identity).full_id)
    if (path / SAMPLE).is_file():
        sample = opened(path / SAMPLE).decode(_Sample)
        return _of_calls(name, sample.iters, sample.times, "ns")
    return _known(name, opened(path / ESTIMATES).decode(_Estimates))


def _of_message(message: _Message) -> Known:
    return _of_calls(stored.line(message.id), message.iteration_count, message.measured_values, message.unit)


def _of_calls(name: str, calls: list[float], times: list[float], unit: str) -> Known:
    try:
        if len(calls) != len(times) or not all(count > 0 for count in calls):
            raise ValueError("has other numbers of calls than of times")
        if unit not in SECONDS:
            raise ValueError(f"its unit of time is {stored.line(unit)}")
        each = [time * SECONDS[unit] / count for count, time in zip(calls, times, strict=True)]
        return Known(name, None, metrics={LATENCY: samples.of_process(each)})
    except ValueError as error:
        return Known(name, None, UNREADABLE, str(error))


def _known(name: str, estimates: _Estimates) -> Known:
    try:
        return Known(stored.line(name), None, metrics={LATENCY: _latency(estimates.typical)})
    except ValueError as error:
        return Known(stored.line(name), None, UNREADABLE, str(error))


def _latency(estimate: _Estimate) -> Sample:
    scale = SECONDS["ns"]
    return samples.of_error(estimate.point_estimate * scale, estimate.standard_error * scale, FREEDOM)


def _messages(contents: Contents) -> Iterator[_Message]:
    """Yields what was measured; other lines (groups, of cargo itself) are left out."""
    for number, line in enumerate(contents.lines, start=1):
        if not line.lstrip().startswith(b"{"):
            continue
        try:
            fields = msgspec.json.decode(line, type=dict[str, Any])
            if fields.get("reason") == "benchmark-complete":
                yield msgspec.convert(fields, _Message)
        except stored.UNDECODABLE as error:
            raise Unreadable(f"{contents.path}: line {number}: {stored.line(error)}") from None
