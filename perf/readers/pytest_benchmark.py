"""pytest-benchmark: what `pytest --benchmark-json` writes, with or without raw data, and with the
results of hotlap inside where its fixture `lap` ran (`pytest bench`).

Times are in seconds; data is there with --benchmark-json or --benchmark-save-data
(https://pytest-benchmark.readthedocs.io).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from ..stats import estimates
from ..terms import stored
from ..terms.environment import Environment
from ..terms.result import Result
from ..terms.stored import Count
from ..terms.verdict import Place
from . import hotlap, samples
from .contents import Contents, numbers
from .side import LATENCY, UNREADABLE, Known, Sample, Side, stated_fields

TOOL = "pytest-benchmark"
MARK = rb'"machine_info"\s*:|"commit_info"\s*:|"fullname"\s*:'


class _Stats(msgspec.Struct):
    mean: float
    rounds: Count
    stddev: float = 0.0
    median: float | None = None
    data: list[float] | None = None


class _Name(msgspec.Struct):
    fullname: str


class _Benchmark(msgspec.Struct):
    fullname: str
    stats: _Stats
    extra_info: dict[str, Any] = {}


class _Section(msgspec.Struct):
    """What `pytest bench` adds: environments, and results without a time, the pace among them."""

    environment: dict[str, Environment] = {}
    results: list[Result] = []


class _Info(msgspec.Struct):
    machine_info: dict[str, Any] = {}
    commit_info: dict[str, Any] = {}
    datetime: str = ""
    hotlap: _Section | None = None


def claims(contents: Contents) -> bool:
    return "benchmarks" in contents.fields and (
        "machine_info" in contents.fields or "stats" in contents.first("benchmarks")
    )


def read(contents: Contents) -> list[Side]:
    info = contents.decode(_Info)
    commit = str(info.commit_info.get("id") or "") + ("+" if info.commit_info.get("dirty") is True else "")
    machine = environment(info.machine_info)
    results, written, cases = list[Result](), dict[str, Place](), list[Known]()
    for part in contents.part(list[msgspec.Raw], "benchmarks", []):
        name = contents.decode(_Name, part).fullname
        place = Place(name.partition("::")[0]) if "::" in name else None
        try:
            benchmark = msgspec.json.decode(part, type=_Benchmark)
            if info.hotlap is not None and "hotlap" in benchmark.extra_info:
                result = msgspec.convert(benchmark.extra_info["hotlap"], Result)
                results.append(result)
                if place is not None:
                    written[result.case.id] = place
                continue
            metrics, extras = {LATENCY: _latency(benchmark.stats)}, numbers(benchmark.extra_info)
        except (ValueError, *stored.UNDECODABLE) as error:
            cases.append(Known(name, machine, UNREADABLE, stored.line(error), commit=commit, place=place))
            continue
        cases.append(Known(name, machine, metrics=metrics, extras=extras, commit=commit, place=place))
    if info.hotlap is not None:
        cases += hotlap.known([*results, *info.hotlap.results], info.hotlap.environment, written)
    return [Side(contents.path, hotlap.by_name(cases), info.datetime, tool=TOOL)]


def environment(machine: Mapping[str, Any]) -> dict[str, str]:
    """Returns machine_info by the names of side.BLOCKING: the patch of Python's version is a name
    of its own, which forbids no comparison. Empty where the file does not say what CPU it was.
    """
    cpu = machine.get("cpu")
    cpu = cpu if isinstance(cpu, dict) else {}
    version = str(machine.get("python_version", ""))
    fields = {
        "machine": machine.get("machine"),
        "cpu": cpu.get("brand_raw"),
        "cpus": cpu.get("count"),
        "implementation": machine.get("python_implementation"),
        "python": ".".join(version.split(".")[:2]),
        "python patch": version,
        "node": machine.get("node"),
    }
    return stated_fields(fields)


def _latency(stats: _Stats) -> Sample:
    """Raises ValueError."""
    centre = stats.mean if stats.median is None else stats.median
    samples.check([centre, *(stats.data or [])])
    if stats.rounds < 1:
        raise ValueError("has no rounds")
    if stats.data and len(stats.data) >= 2 * estimates.BATCHES:
        return replace(samples.of_process(stats.data), centre=centre)
    return samples.of_spread(centre, stats.stddev, stats.rounds)
