"""hyperfine: what --export-json writes. Each time is of a process of its own; the files never say
which machine it was (https://github.com/sharkdp/hyperfine).
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import msgspec

from ..stats import estimates
from ..terms import stored
from . import samples
from .contents import Contents
from .hotlap import by_name
from .side import LATENCY, UNREADABLE, Known, Sample, Side

TOOL = "hyperfine"
MARK = rb'"command"\s*:|"exit_codes"\s*:'


class _Name(msgspec.Struct):
    command: str


class _Command(_Name):
    mean: float | None = None
    stddev: float | None = None
    times: list[float] = []
    exit_codes: list[int | None] = []
    parameters: dict[str, Any] = {}
    memory_usage_byte: list[float] = []

    @property
    def name(self) -> str:
        chosen = ", ".join(f"{name}={value}" for name, value in self.parameters.items())
        return f"{self.command} [{chosen}]" if chosen and chosen not in self.command else self.command


def claims(contents: Contents) -> bool:
    return "results" in contents.fields and "command" in contents.first("results")


def read(contents: Contents) -> list[Side]:
    cases = []
    for part in contents.part(list[msgspec.Raw], "results", []):
        try:
            cases.append(_known(msgspec.json.decode(part, type=_Command)))
        except stored.UNDECODABLE as error:
            name = stored.line(contents.decode(_Name, part).command)
            cases.append(Known(name, None, UNREADABLE, stored.line(error)))
    return [Side(contents.path, by_name(cases), tool=TOOL)]


def _known(command: _Command) -> Known:
    name = stored.line(command.name)
    if failed := [code for code in command.exit_codes if code]:
        return Known(name, None, "failed", f"{len(failed)} of its runs ended with {failed[0]}")
    try:
        metrics = {LATENCY: _latency(command)}
    except ValueError as error:
        return Known(name, None, UNREADABLE, str(error))
    with contextlib.suppress(ValueError):  # 0 where the system does not tell
        metrics["memory"] = samples.of_processes([[value] for value in command.memory_usage_byte], "B")
    return Known(name, None, metrics=metrics)


def _latency(command: _Command) -> Sample:
    """Returns a block a process, or 16 means of neighbours, since runs in a row are not quite
    independent. Raises ValueError.
    """
    times = command.times
    if not times:
        if command.mean is None:
            raise ValueError("has neither times nor a mean")
        if command.stddev is None:
            return samples.single(command.mean)
        return samples.of_spread(command.mean, command.stddev, estimates.BATCHES)
    samples.check(times)
    if len(times) < 2 * estimates.BATCHES:
        return samples.of_processes([[time] for time in times])
    size = len(times) // estimates.BATCHES
    means = [
        [math.exp(estimates.fmean([math.log(time) for time in times[start : start + size]]))]
        for start in range(0, size * estimates.BATCHES, size)
    ]
    return samples.of_processes(means)
