"""asv (airspeed velocity): a file of its results folder, which holds one commit on one machine.
What a benchmark measures is said by the start of its name, and by benchmarks.json beside the
machine's folder where that is there (https://asv.readthedocs.io/en/stable/dev.html).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from ..stats import estimates
from ..terms import stored
from ..terms.reasons import Misuse
from ..terms.result import MOST
from . import samples
from .contents import Contents
from .contents import contents as opened
from .hotlap import by_name
from .side import FIGURE, LATENCY, UNREADABLE, Known, Sample, Side, stated_fields

TOOL = "asv"
MARK = rb'"result_columns"\s*:|"commit_hash"\s*:'
# The metric and unit of each kind of benchmark; a time_ is a latency.
KINDS = {
    "time": (LATENCY, "s"), "timeraw": (LATENCY, "s"), "mem": ("memory", "B"),
    "peakmem": ("memory", "B"), "track": (FIGURE, ""),
}  # fmt: skip
# Two-sided 99 % of a normal distribution, in standard deviations.
NORMAL_99 = 2.5758
# The middle half of a normal distribution, in standard deviations.
MIDDLE_HALF = 1.349
# How asv names an interpreter that it did not make; others are named by their path.
VERSION = re.compile(r"\d+(\.\d+)*")


class _File(msgspec.Struct):
    commit_hash: str
    result_columns: list[str]
    results: dict[str, list[Any]]
    params: dict[str, Any] = {}
    python: str = ""
    env_name: str = ""
    date: float = 0.0


def claims(contents: Contents) -> bool:
    return {"commit_hash", "result_columns", "results"} <= contents.fields.keys()


def read(contents: Contents) -> list[Side]:
    file = contents.decode(_File)
    machine, units = environment(file), _units(contents)
    cases = list[Known]()
    for name, row in file.results.items():
        columns = dict(zip(file.result_columns, row, strict=False))
        for case, cell in _cells(name, columns):
            metric, unit = KINDS.get(name.rpartition(".")[2].partition("_")[0], (FIGURE, ""))
            unit = units.get(name, unit) if metric == FIGURE else unit
            cases.append(_known(case, machine, metric, unit, cell, file.commit_hash))
    try:
        measured = datetime.fromtimestamp(file.date / 1000, UTC).isoformat() if file.date else ""
    except (ValueError, OverflowError, OSError):
        measured = ""
    return [Side(contents.path, by_name(cases), measured, tool=TOOL)]


def _cells(name: str, columns: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each combination of parameters with what the columns say of it; a result that is one
    value has none.
    """
    combinations = list(itertools.product(*_lists(columns.get("params"))))
    results = columns.get("result")
    if not isinstance(results, list):
        results = [results] * len(combinations)
    for number, (values, result) in enumerate(zip(combinations, results, strict=False)):
        cell = {"result": result}
        for column, content in columns.items():
            if column.startswith("stats_") or column == "samples":
                cell[column] = (
                    content[number] if isinstance(content, list) and number < len(content) else None
                )
        yield (f"{name}({', '.join(map(str, values))})" if values else name), cell


def _lists(params: Any) -> list[list[Any]]:
    return [values for values in params if isinstance(values, list)] if isinstance(params, list) else []


def _known(
    case: str, machine: dict[str, str], metric: str, unit: str, cell: dict[str, Any], commit: str
) -> Known:
    value = cell["result"]
    if value is None:
        return Known(case, machine, "failed", "asv has no result of it: failed or skipped", commit=commit)
    try:
        return Known(case, machine, metrics={metric: _sample(value, unit, cell)}, commit=commit)
    except (TypeError, ValueError, OverflowError) as error:
        return Known(case, machine, UNREADABLE, stored.line(error), commit=commit)


def _sample(value: Any, unit: str, cell: dict[str, Any]) -> Sample:
    """Returns the samples where they are kept, else the median with the error that its interval or
    its quartiles show. Raises TypeError or ValueError.
    """
    if isinstance(kept := cell.get("samples"), list) and len(kept) >= 2 * estimates.BATCHES:
        return samples.of_process([float(sample) for sample in kept], unit)
    if (width := _between(cell, "stats_ci_99_a", "stats_ci_99_b")) is not None:
        return samples.of_error(float(value), width / 2 / NORMAL_99, estimates.BATCHES - 1, unit)
    width, count = _between(cell, "stats_q_25", "stats_q_75"), cell.get("stats_repeat")
    if width is not None and isinstance(count, int) and count > 1:
        return samples.of_spread(float(value), width / MIDDLE_HALF, count, unit)
    return samples.single(float(value), unit)


def _between(cell: dict[str, Any], low: str, high: str) -> float | None:
    """Returns the distance of two columns; None where they are no numbers."""
    ends = [cell.get(low), cell.get(high)]
    numbers = [end for end in ends if isinstance(end, float | int) and abs(end) < MOST]
    return numbers[1] - numbers[0] if len(numbers) == len(ends) else None


def _units(contents: Contents) -> dict[str, str]:
    """Returns the units that benchmarks.json gives; empty without it."""
    path = contents.path.parent.parent / "benchmarks.json"
    if not path.is_file():
        return {}
    try:
        listed = opened(path).decode(dict[str, Any])
    except Misuse:
        return {}
    return {
        name: stored.line(entry["unit"])
        for name, entry in listed.items()
        if isinstance(entry, dict) and isinstance(entry.get("unit"), str)
    }


def environment(file: _File) -> dict[str, str]:
    """Returns the machine by the names of side.BLOCKING; its libraries are a name of their own."""
    params = file.params
    fields = {
        "machine": params.get("arch"),
        "cpu": params.get("cpu"),
        "cpus": params.get("num_cpu"),
        "python": file.python if VERSION.fullmatch(file.python) else "",
        "environment": file.env_name,
        "system": params.get("os"),
        "node": params.get("machine"),
    }
    return stated_fields(fields)
