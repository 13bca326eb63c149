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
from ..terms import stored
from ..terms.case import Better
from ..terms.environment import Differences, Environment
from ..terms.reasons import Unreadable
from ..terms.result import LEAST, MOST, SCHEMA, Result, Results, Task
from ..terms.stored import Count
from ..terms.verdict import Place

# The names of the two runs that `hotlap ab` writes: one race, whose blocks both sides share.
AB_RUNS = ("ab/base", "ab/head")
# Statuses of a result that can be compared.
GOOD = ("ok", "noisy", "verified")
# What of pytest-benchmark's machine_info forbids a comparison; all the rest (node, release, clock)
# is only noted.
BLOCKING = ("machine", "python_implementation", "python_version")
# The same of its field cpu.
BLOCKING_CPU = ("arch", "brand_raw", "count")


@dataclass(frozen=True)
class Sample:
    """One metric of one case."""

    unit: str
    better: Better
    # In the unit.
    centre: float
    # Block values on the log scale, as ratios to the pace if `paced`.
    logs: tuple[float, ...] = ()
    # Every sample of each block, where that is known.
    blocks: tuple[tuple[float, ...], ...] = ()
    paced: bool = False
    # Standard error of the log centre where there is one process only, else None.
    error: float | None = None
    # Degrees of freedom of `error`.
    freedom: float = 0.0


@dataclass(frozen=True)
class Known:
    """What one side knows of a case."""

    # Its id.
    case: str
    # Hotlap's own, or pytest-benchmark's machine_info as text, with the fields of cpu as cpu.X.
    environment: Environment | Mapping[str, str]
    # As in a result.
    status: str = "ok"
    # Of a status that is not ok.
    reason: str = ""
    # By the metric's name.
    metrics: dict[str, Sample] = field(default_factory=dict)
    # By the counter's name.
    counters: dict[str, int] = field(default_factory=dict)
    # The worst distance of the outputs from the reference, as a share of what is allowed.
    deviation: float | None = None
    # The task metric on the validation split.
    task: Task | None = None
    # Where the weights come from.
    weights: str = ""
    # Of the repository, with a + where there were uncommitted changes; empty if not known.
    commit: str = ""
    # Where its benchmark or workload stands.
    place: Place | None = None

    @property
    def setting(self) -> dict[str, str]:
        """What two results must share to be compared."""
        if isinstance(self.environment, Environment):
            return self.environment.setting
        return {name: value for name, value in self.environment.items() if _blocks(name)}

    @property
    def good(self) -> bool:
        return self.status in GOOD

    @property
    def steady(self) -> bool:
        return not self.reason.startswith("not_steady")


@dataclass(frozen=True)
class Side:
    """What a results file holds.

    measured: when, as the file says (ISO 8601), or empty. raced: the race of `hotlap ab` that it is
    one side of, or empty: two such sides share their blocks.
    """

    path: Path
    cases: dict[str, Known]
    measured: str = ""
    raced: str = ""


def differs(base: Known, head: Known) -> Differences:
    """Returns what of two environments forbids a comparison, and what is only noted."""
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
    different = {
        name: (mine.get(name, "unknown"), theirs.get(name, "unknown"))
        for name in {**mine, **theirs}
        if mine.get(name) != theirs.get(name)
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
    """Reads a results file, whoever wrote it.

    Raises Misuse (no such file) or Unreadable (exit 4) with one line.
    """
    content, wrong = stored.content(path), "neither results of hotlap nor of pytest-benchmark"
    head = stored.decode(path, content, _FileHead, wrong)
    kind: type[_File | Results] = _File if bytes(head.benchmarks) else Results
    file = stored.decode(path, content, kind, wrong)
    try:
        all_known = _theirs(file) if isinstance(file, _File) else _ours(file)
    except (ValueError, *stored.UNDECODABLE) as error:
        raise Unreadable(f"{path}: {stored.line(error)}") from None
    cases: dict[str, Known] = {}
    for known in all_known:
        if known.case in cases:
            raise Unreadable(f"{path}: {stored.line(known.case)} stands there twice")
        cases[known.case] = known
    return Side(path, cases, head.started or head.datetime, head.started if head.run in AB_RUNS else "")


def _ours(file: Results) -> list[Known]:
    if file.schema != SCHEMA:
        raise Unreadable(f"results schema {file.schema}, this hotlap reads {SCHEMA}; measure again")
    return known(file.results, file.environment)


def known(
    results: Sequence[Result],
    environments: Mapping[str, Environment],
    written: Mapping[str, Place] | None = None,
) -> list[Known]:
    """Returns what results say of their cases; the pace is no case of its own.

    written: where a case's benchmark stands, if that is known.
    """
    paces = {result.race_id: result for result in results if result.case.backend == PACE}
    return [
        _of_result(result, environments, paces.get(result.race_id), (written or {}).get(result.case.id))
        for result in results
        if result.case.backend != PACE
    ]


def _of_result(
    result: Result, environments: Mapping[str, Environment], pace: Result | None, place: Place | None
) -> Known:
    if result.environment not in environments:
        raise Unreadable(f"{result.case.id} names an environment that the file does not hold")
    if (wrong := result.contradiction) is not None:
        raise Unreadable(f"{result.case.id}: status {result.status} although {wrong}")
    deviation = None
    if result.deviation is not None and result.deviation.distances:
        deviation = max(
            distance.rmse / distance.tolerance if distance.tolerance > 0 else math.inf
            for distance in result.deviation.distances.values()
        )
    metrics = {}
    for name, samples in result.metrics.items():
        values = [list(block) for block in samples.values if block]
        _check(result.case.id, [value for block in values for value in block])
        paced = (
            [list(block) for block in pace.metrics["latency"].values]
            if name == "latency" and pace is not None and "latency" in pace.metrics
            else []
        )
        _check(result.case.id, [value for block in paced for value in block])
        if values:
            metrics[name] = _of_blocks(samples.unit, samples.better, values, paced)
    return Known(
        case=result.case.id,
        environment=environments[result.environment],
        status=result.status,
        reason=str(result.reason or ""),
        metrics=metrics,
        counters=dict(result.placement.counters) if result.placement else {},
        deviation=deviation,
        task=result.deviation.task if result.deviation is not None else None,
        weights=result.weights,
        commit=environments[result.environment].commit,
        place=place or source_lines.find(result.case.workload),
    )


def _of_blocks(unit: str, better: Better, values: list[list[float]], pace: list[list[float]]) -> Sample:
    centre = math.exp(estimates.fmean([math.log(estimates.middle(block)) for block in values]))
    blocks = estimates.paired(pace, values) if pace else values
    return Sample(
        unit,
        better,
        centre,
        tuple(math.log(estimates.middle(block)) for block in blocks),
        tuple(map(tuple, values)),
        bool(pace),
    )


def _check(case: str, values: Sequence[float]) -> None:
    if not all(LEAST < value < MOST for value in values):
        raise Unreadable(f"{case} holds a value that is not above 0, or no measurement")


class _FileHead(msgspec.Struct):
    """Enough to know whose file it is and when: started is ours, datetime pytest-benchmark's."""

    benchmarks: msgspec.Raw = msgspec.Raw()
    run: str = ""
    started: str = ""
    datetime: str = ""


class _Stats(msgspec.Struct):
    """https://pytest-benchmark.readthedocs.io: times in s; data only with --benchmark-json or
    --benchmark-save-data.
    """

    mean: float
    rounds: Count
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
    machine = {name: str(value) for name, value in _flat(file.machine_info).items()}
    for benchmark in file.benchmarks:
        name = benchmark.fullname
        place = Place(name.partition("::")[0]) if "::" in name else None
        if file.hotlap is not None and "hotlap" in benchmark.extra_info:
            result = msgspec.convert(benchmark.extra_info["hotlap"], Result)
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
                    machine,
                    metrics={"latency": _of_stats(name, benchmark.stats)},
                    commit=commit,
                    place=place,
                )
            )
    if file.hotlap is not None:
        single += known([*results, *file.hotlap.results], file.hotlap.environment, written)
    return single


def _of_stats(name: str, stats: _Stats) -> Sample:
    """Returns the latency of one process: over 16 batch means of the raw samples, or as if there
    were at most 16 where only their spread is known.
    """
    centre = stats.mean if stats.median is None else stats.median
    _check(name, [centre, *(stats.data or [])])
    if not (stats.rounds >= 1 and 0 <= stats.stddev < MOST):
        raise Unreadable(f"{name} has {stats.rounds} rounds and a standard deviation of {stats.stddev}")
    if stats.data and len(stats.data) >= 2 * estimates.BATCHES:
        estimate = estimates.interval_over_batches(stats.data)
        freedom = estimates.BATCHES - 1
        return Sample(
            "s",
            "lower",
            centre,
            error=estimate.half_width / estimates.student_t(0.975, freedom),
            freedom=freedom,
        )
    count = min(stats.rounds, estimates.BATCHES)
    if count < 2:
        return Sample("s", "lower", centre)
    return Sample("s", "lower", centre, error=stats.stddev / centre / math.sqrt(count), freedom=count - 1)
