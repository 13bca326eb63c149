"""Google Benchmark: what --benchmark_format=json or --benchmark_out writes. Repetitions are of one
process; with --benchmark_report_aggregates_only their mean, median and standard deviation are all
there is (https://github.com/google/benchmark/blob/main/docs/user_guide.md).
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..terms import stored
from ..terms.stored import Count
from . import samples
from .contents import Contents, numbers
from .side import LATENCY, UNREADABLE, Known, Sample, Side, stated_fields

TOOL = "Google Benchmark"
MARK = rb'"library_build_type"\s*:|"num_cpus"\s*:|"real_time"\s*:'
# Unit of a time -> s.
SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
# What aggregates are called; those of ->Complexity() are no times.
COMPLEXITY = {"BigO", "RMS"}
AGGREGATES = ("mean", "median", "stddev", "cv", *COMPLEXITY)
# Fields of a benchmark that are no counter of its author.
OWN = {
    "family_index", "per_family_instance_index", "repetitions", "repetition_index", "threads",
    "iterations", "real_time", "cpu_time", "bytes_per_second", "items_per_second",
}  # fmt: skip


class _Context(msgspec.Struct):
    date: str = ""
    host_name: str = ""
    num_cpus: int = 0
    mhz_per_cpu: float = 0.0
    library_build_type: str = ""
    library_version: str = ""


class _Name(msgspec.Struct):
    """How a row is called; before 1.5 its aggregates were told by the ends of their names alone."""

    name: str
    run_name: str = ""
    run_type: str = ""
    aggregate_name: str = ""

    @property
    def aggregate(self) -> str:
        """Which aggregate it is; empty for a repetition."""
        if self.run_type:
            return self.aggregate_name if self.run_type == "aggregate" else ""
        return next((each for each in AGGREGATES if self.name.endswith(f"_{each}")), "")

    @property
    def kind(self) -> str:
        return "aggregate" if self.aggregate else "iteration"

    @property
    def case(self) -> str:
        return self.run_name or self.name.removesuffix(f"_{self.aggregate}")


class _Benchmark(_Name):
    real_time: float = 0.0
    repetitions: Count = 1
    time_unit: str = "ns"
    error_occurred: bool = False
    error_message: str = ""
    skipped: bool = False
    skip_message: str = ""

    @property
    def seconds(self) -> float:
        if self.time_unit not in SECONDS:
            raise ValueError(f"its unit of time is {self.time_unit}")
        return self.real_time * SECONDS[self.time_unit]


def claims(contents: Contents) -> bool:
    return {"context", "benchmarks"} <= contents.fields.keys()


def read(contents: Contents) -> list[Side]:
    context = contents.decode(_Context, contents.fields["context"])
    rows: dict[str, list[_Benchmark]] = {}
    extras: dict[str, dict[str, float]] = {}
    unreadable: dict[str, str] = {}
    for part in contents.part(list[msgspec.Raw], "benchmarks", []):
        name = contents.decode(_Name, part).case
        try:
            row = msgspec.json.decode(part, type=_Benchmark)
            fields = numbers(msgspec.json.decode(part, type=dict[str, Any]))
        except stored.UNDECODABLE as error:
            unreadable[name] = stored.line(error)
            continue
        rows.setdefault(name, []).append(row)
        if row.kind == "iteration":
            extras[name] = {each: value for each, value in fields.items() if each not in OWN}
    machine = environment(context)
    cases = {name: Known(name, machine, UNREADABLE, why) for name, why in unreadable.items()}
    for name, repeated in rows.items():
        if name not in cases and {row.aggregate for row in repeated} - COMPLEXITY:
            cases[name] = _known(name, machine, repeated, extras.get(name, {}))
    return [Side(contents.path, cases, context.date, tool=TOOL)]


def _known(name: str, machine: dict[str, str], rows: list[_Benchmark], extras: dict[str, float]) -> Known:
    failed = next((row for row in rows if row.error_occurred or row.skipped), None)
    if failed is not None:
        why = failed.error_message or failed.skip_message or "it says so"
        return Known(name, machine, "skipped" if failed.skipped else "failed", why)
    try:
        return Known(name, machine, metrics={LATENCY: _latency(rows)}, extras=extras)
    except ValueError as error:
        return Known(name, machine, UNREADABLE, str(error))


def _latency(rows: list[_Benchmark]) -> Sample:
    """Raises ValueError."""
    if times := [row.seconds for row in rows if row.kind == "iteration"]:
        return samples.of_process(times)
    aggregates = {row.aggregate: row for row in rows}
    centre = aggregates.get("median") or aggregates.get("mean")
    if centre is None:
        raise ValueError("has neither repetitions nor a mean")
    if (deviation := aggregates.get("stddev")) is None:
        return samples.single(centre.seconds)
    return samples.of_spread(centre.seconds, deviation.seconds, centre.repetitions)


def environment(context: _Context) -> dict[str, str]:
    """Returns the context by the names of side.BLOCKING: the CPU has no name there, and its clock
    is what the kernel said at the start.
    """
    fields = {
        "cpus": context.num_cpus,
        "build": context.library_build_type,
        "clock": f"{context.mhz_per_cpu:g} MHz",
        "library": context.library_version,
        "node": context.host_name,
    }
    return stated_fields(fields)
