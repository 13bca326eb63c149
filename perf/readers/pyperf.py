"""pyperf: what `python -m pyperf ... -o FILE` writes. Each run is a fresh process, so that a run is
a block; runs without values only found the number of loops
(https://pyperf.readthedocs.io/en/latest/api.html).
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..terms import stored
from . import samples
from .contents import Contents
from .hotlap import by_name
from .side import FIGURE, LATENCY, UNREADABLE, Known, Side, stated_fields

TOOL = "pyperf"
MARK = rb'"warmups"\s*:|"calibrate_loops"\s*:|"perf_version"\s*:'
# The metric of each unit of pyperf's metadata, with ours.
METRICS = {"second": (LATENCY, "s"), "byte": ("memory", "B"), "integer": (FIGURE, "")}


class _Run(msgspec.Struct):
    values: list[float] = []
    metadata: dict[str, Any] = {}


class _Benchmark(msgspec.Struct):
    runs: list[_Run]
    metadata: dict[str, Any] = {}


def claims(contents: Contents) -> bool:
    return "benchmarks" in contents.fields and "runs" in contents.first("benchmarks")


def read(contents: Contents) -> list[Side]:
    common = contents.part(dict[str, Any], "metadata", {})
    cases, dates = [], []
    for number, part in enumerate(contents.part(list[msgspec.Raw], "benchmarks", []), start=1):
        try:
            benchmark = msgspec.json.decode(part, type=_Benchmark)
        except stored.UNDECODABLE as error:
            cases.append(Known(f"benchmark {number}", {}, UNREADABLE, stored.line(error)))
            continue
        own = {**common, **benchmark.metadata}
        name = str(own.get("name") or f"benchmark {number}")
        first = benchmark.runs[0].metadata if benchmark.runs else {}
        dates += [str(first["date"])] if first.get("date") else []
        machine = environment({**first, **own})
        try:
            metric, unit = METRICS[str(own.get("unit", "second"))]
            values = [run.values for run in benchmark.runs if run.values]
            if not values:
                raise ValueError("has no values")
            known = Known(name, machine, metrics={metric: samples.of_processes(values, unit)})
        except KeyError:
            known = Known(name, machine, UNREADABLE, f"its unit is {stored.line(own.get('unit'))}")
        except ValueError as error:
            known = Known(name, machine, UNREADABLE, str(error))
        cases.append(known)
    return [Side(contents.path, by_name(cases), min(dates, default=""), tool=TOOL)]


def environment(metadata: dict[str, Any]) -> dict[str, str]:
    """Returns the metadata by the names of side.BLOCKING."""
    version = str(metadata.get("python_version", "")).partition(" ")[0]
    fields = {
        "cpu": metadata.get("cpu_model_name"),
        "cpus": metadata.get("cpu_count"),
        "implementation": metadata.get("python_implementation"),
        "python": ".".join(version.split(".")[:2]),
        "python patch": version,
        "platform": metadata.get("platform"),
        "node": metadata.get("hostname"),
    }
    return stated_fields(fields)
