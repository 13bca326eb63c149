"""One side of a gate: what a results file says of its cases, whoever wrote it.

hotlap's results.json; pytest-benchmark's JSON with hotlap's results inside (`pytest bench`);
pytest-benchmark's JSON by others, with or without its raw data. Of the last, one process is all
there is, so its interval is over 16 batch means and says nothing of how processes or jobs differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ..lookup import source_lines
from ..lookup.cases import PACE
from ..stats import estimates
from ..terms.case import Better
from ..terms.environment import Differences, Environment
from ..terms.reasons import Misuse, Unreadable
from ..terms.result import SCHEMA, Result, Results
from ..terms.verdict import Place

GOOD = ("ok", "noisy", "verified")
# What of pytest-benchmark's machine_info forbids a comparison; all the rest (node, release, clock)
# is only noted.
BLOCKING = ("machine", "python_implementation", "python_version")
BLOCKING_CPU = ("arch", "brand_raw", "count")


@dataclass(frozen=True)
class Sample:
    """One metric of one case.

    centre: in its unit. logs: block values on the log scale, as ratios to the pace if `paced`.

    error, freedom: where there is one process only, the standard error of the log centre.
    """

    unit: str
    better: Better
    centre: float
    logs: tuple[float, ...] = ()
    paced: bool = False
    error: float | None = None
    freedom: float = 0.0


@dataclass(frozen=True)
class Known:
    """What one side knows of a case. environment: its own, or pytest-benchmark's machine_info."""

    case: str
    environment: Environment | Mapping[str, Any]
    status: str = "ok"
    reason: str = ""
    metrics: dict[str, Sample] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    deviation: float | None = None
    task: tuple[str, Better, float] | None = None
    weights: str = ""
    commit: str = ""
    place: Place | None = None

    @property
    def setting(self) -> dict[str, str]:
        """What two results must share to be compared."""
        if isinstance(self.environment, Environment):
            return self.environment.setting
        return {name: str(value) for name, value in _flat(self.environment).items() if _blocks(name)}

    @property
    def good(self) -> bool:
        return self.status in GOOD

    @property
    def steady(self) -> bool:
        return not self.reason.startswith("not_steady")


@dataclass(frozen=True)
class Side:
    """measured: when, as the file says (ISO 8601), or empty."""

    path: Path
    cases: dict[str, Known]
    measured: str = ""


def differs(base: Known, head: Known) -> Differences:
    """What of the two environments forbids a comparison, and what is only noted."""
    mine, theirs = base.environment, head.environment
    if isinstance(mine, Environment) and isinstance(theirs, Environment):
        return mine.differs(theirs)
    if isinstance(mine, Environment) or isinstance(theirs, Environment):
        return Differences(
            {
                "tool": (
                    "hotlap" if isinstance(mine, Environment) else "pytest-benchmark",
                    "hotlap" if isinstance(theirs, Environment) else "pytest-benchmark",
                )
            },
            {},
        )
    a, b = _flat(mine), _flat(theirs)
    different = {
        name: (str(a.get(name, "unknown")), str(b.get(name, "unknown")))
        for name in {**a, **b}
        if a.get(name) != b.get(name)
    }
    blocking = {name: pair for name, pair in different.items() if _blocks(name)}
    return Differences(
        blocking, {name: pair for name, pair in different.items() if name not in blocking and name == "node"}
    )


def _blocks(name: str) -> bool:
    return name in BLOCKING or (name.startswith("cpu.") and name.removeprefix("cpu.") in BLOCKING_CPU)


def _flat(machine: Mapping[str, Any]) -> dict[str, Any]:
    cpu = machine.get("cpu")
    return {
        **machine,
        **({f"cpu.{name}": value for name, value in cpu.items()} if isinstance(cpu, dict) else {}),
    }


def read(path: Path) -> Side:
    """Raises Misuse (no such file) or Unreadable (exit 4) with one line."""
    try:
        content = path.read_bytes()
        head = msgspec.json.decode(content, type=_Head)
        found = (
            _ours(msgspec.json.decode(content, type=Results))
            if not bytes(head.benchmarks)
            else _theirs(msgspec.json.decode(content, type=_File))
        )
    except FileNotFoundError:
        raise Misuse(f"{path}: there is no such file") from None
    except Unreadable as error:
        raise Unreadable(f"{path}: {error}") from None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Unreadable(
            f"{path}: neither results of hotlap nor of pytest-benchmark: {' '.join(str(error).split())[:300]}"
        ) from None
    cases: dict[str, Known] = {}
    for one in found:
        if one.case in cases:
            raise Unreadable(f"{path}: {one.case} stands there twice")
        cases[one.case] = one
    return Side(path, cases, head.started or head.datetime)


def _ours(file: Results) -> list[Known]:
    if file.schema != SCHEMA:
        raise Unreadable(f"results schema {file.schema}, this hotlap reads {SCHEMA}; measure again")
    return known(file.results, file.environment)


def known(
    results: Sequence[Result],
    environments: Mapping[str, Environment],
    written: Mapping[str, Place] | None = None,
) -> list[Known]:
    """What results say of their cases; the pace is no case of its own.

    written: where a case's benchmark stands, if that is known.
    """
    paces = {one.race_id: one for one in results if one.case.backend == PACE}
    return [
        _of_result(one, environments, paces.get(one.race_id), (written or {}).get(one.case.id))
        for one in results
        if one.case.backend != PACE
    ]


def _of_result(
    one: Result, environments: Mapping[str, Environment], pace: Result | None, place: Place | None
) -> Known:
    if one.environment not in environments:
        raise Unreadable(f"{one.case.id} names an environment that the file does not hold")
    deviation = None
    if one.deviation is not None and one.deviation.distances:
        deviation = max(
            found.rmse / found.tolerance if found.tolerance > 0 else math.inf
            for found in one.deviation.distances.values()
        )
    task = one.deviation.task if one.deviation is not None else None
    metrics = {}
    for name, samples in one.metrics.items():
        values = [list(block) for block in samples.values if block]
        _check(one.case.id, [value for block in values for value in block])
        paced = (
            [list(block) for block in pace.metrics["latency"].values]
            if name == "latency" and pace is not None and "latency" in pace.metrics
            else []
        )
        _check(one.case.id, [value for block in paced for value in block])
        if values:
            metrics[name] = _of_blocks(samples.unit, samples.better, values, paced)
    return Known(
        case=one.case.id,
        environment=environments[one.environment],
        status=one.status,
        reason=str(one.reason or ""),
        metrics=metrics,
        counters=dict(one.placement.counters) if one.placement else {},
        deviation=deviation,
        task=(task.metric, task.better, task.value) if task is not None else None,
        weights=one.weights,
        commit=environments[one.environment].commit,
        place=place or source_lines.find(one.case.workload),
    )


def _of_blocks(unit: str, better: Better, values: list[list[float]], pace: list[list[float]]) -> Sample:
    centre = math.exp(estimates.fmean([math.log(estimates.middle(block)) for block in values]))
    blocks = estimates.paired(pace, values) if pace else values
    return Sample(
        unit, better, centre, tuple(math.log(estimates.middle(block)) for block in blocks), bool(pace)
    )


def _check(case: str, values: Sequence[float]) -> None:
    if not all(0 < value < math.inf for value in values):
        raise Unreadable(f"{case} holds a value that is not above 0")


class _Head(msgspec.Struct):
    """Enough to know whose file it is and when: started is ours, datetime pytest-benchmark's."""

    benchmarks: msgspec.Raw = msgspec.Raw()
    started: str = ""
    datetime: str = ""


class _Stats(msgspec.Struct):
    """https://pytest-benchmark.readthedocs.io: times in s; data only with --benchmark-json or
    --benchmark-save-data.
    """

    mean: float
    rounds: int
    stddev: float = 0.0
    median: float | None = None
    data: list[float] | None = None


class _Benchmark(msgspec.Struct):
    fullname: str
    stats: _Stats
    extra_info: dict[str, Any] = {}


class _Section(msgspec.Struct):
    """What `pytest bench` adds: environments, and results without a time, the pace among them."""

    environment: dict[str, Environment] = {}
    results: list[Result] = []


class _File(msgspec.Struct):
    benchmarks: list[_Benchmark]
    machine_info: dict[str, Any] = {}
    commit_info: dict[str, Any] = {}
    hotlap: _Section | None = None


def _theirs(file: _File) -> list[Known]:
    results, written, single = list[Result](), dict[str, Place](), list[Known]()
    for one in file.benchmarks:
        name = one.fullname
        place = Place(name.partition("::")[0]) if "::" in name else None
        if file.hotlap is not None and "hotlap" in one.extra_info:
            result = msgspec.convert(one.extra_info["hotlap"], Result)
            results.append(result)
            if place is not None:
                written[result.case.id] = place
        else:
            commit = str(file.commit_info.get("id") or "") + (
                "+" if file.commit_info.get("dirty") is True else ""
            )
            single.append(
                Known(
                    name,
                    file.machine_info,
                    metrics={"latency": _of_stats(name, one.stats)},
                    commit=commit,
                    place=place,
                )
            )
    if file.hotlap is not None:
        single += known([*results, *file.hotlap.results], file.hotlap.environment, written)
    return single


def _of_stats(name: str, found: _Stats) -> Sample:
    """One process:

    16 batch means of the raw samples, or as if there were at most 16 where only their spread is
    known.
    """
    centre = found.mean if found.median is None else found.median
    _check(name, [centre, *(found.data or [])])
    if not (found.rounds >= 1 and 0 <= found.stddev < math.inf):
        raise Unreadable(f"{name} has {found.rounds} rounds and a standard deviation of {found.stddev}")
    if found.data and len(found.data) >= 2 * estimates.BATCHES:
        estimate = estimates.interval_over_batches(found.data)
        freedom = estimates.BATCHES - 1
        return Sample(
            "s",
            "lower",
            centre,
            error=estimate.half_width / estimates.student_t(0.975, freedom),
            freedom=freedom,
        )
    count = min(found.rounds, estimates.BATCHES)
    if count < 2:
        return Sample("s", "lower", centre)
    return Sample("s", "lower", centre, error=found.stddev / centre / math.sqrt(count), freedom=count - 1)
