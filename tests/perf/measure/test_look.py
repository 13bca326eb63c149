"""Rows before all entrants are built: whom a first look races, and that nothing of it is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hotlap.perf.lookup import plugins
from hotlap.perf.lookup.cases import expand
from hotlap.perf.machine import survey
from hotlap.perf.measure import look, rundir
from hotlap.perf.measure.journal import Progress
from hotlap.perf.measure.measure import measure
from hotlap.perf.race.entrant import Entrant
from hotlap.perf.race.observations import Observations
from hotlap.perf.terms.case import Plan
from hotlap.perf.terms.result import Result
from hotlap.perf.terms.work import Subject, Work

DEFAULTS = "eager[allocator:default][binding:none]"
MANY = ["eager", DEFAULTS, "eager[binding:none]", "onnxruntime"]


@pytest.mark.parametrize(
    ("backends", "precisions", "budget_s", "raced"),
    [
        (["eager", DEFAULTS, "compile", "onnxruntime", "openvino"], ["fp32"], 90.0, ["eager", "onnxruntime"]),
        (["eager", "compile", "onnxruntime"], ["fp32"], 90.0, []),
        (["eager", "onnxruntime", "compile", "pace"], ["fp32"], 90.0, []),
        (["eager", DEFAULTS, "compile", "openvino"], ["fp32"], 90.0, []),
        (["eager", "onnxruntime"], ["fp32", "bf16"], 90.0, ["eager", "onnxruntime"]),
        (MANY, ["fp32"], look.BUDGET_S, []),
    ],
)
def test_it_races_the_baseline_and_what_is_built_soonest(
    backends: list[str], precisions: list[str], budget_s: float, raced: list[str]
) -> None:
    """Not where the race has few entrants, or no more time than the look."""
    members = look.members(expand(["w"], backends, precisions), Plan(budget_s=budget_s))
    assert [case.spec for case in members] == raced
    assert {case.precision for case in members} <= {precisions[0]}


def test_the_race_of_a_look_leaves_no_trace_in_its_entrants(tmp_path: Path) -> None:
    """Whatever of an entrant can be changed in place is another object in the one that is raced."""
    case = expand(["w"], ["eager"])[0]
    seen = Observations(case, {}, Subject(Work(0, 1, 1, 1, "row", True), ""))
    nothing: Any = None
    entrant = Entrant(case, plugins.backend("eager"), [], {}, tmp_path, tmp_path, tmp_path, seen, nothing)
    raced = look.unraced(entrant)
    assert raced.seen is not seen and raced.seen.blocks is not seen.blocks
    shared = {
        field.name
        for field in dataclasses.fields(Entrant)
        if isinstance(value := getattr(entrant, field.name), (list, set, dict))
        and getattr(raced, field.name) is value
    }
    assert shared == {"preload", "environment"}, "what a race only reads"


class Events(Progress):
    """What happened, in its order."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.rows: list[Result] = []

    def race(self, group: str, entrants: Sequence[Entrant], event: str) -> None:
        self.events += [event] if event else []

    def looked(self, group: str, results: Sequence[Result]) -> None:
        self.events.append("rows")
        self.rows += results


@pytest.fixture(scope="module")
def seen(planted: Path, kept_servers: None) -> tuple[Events, dict[str, Result], Path]:
    """Two races of many entrants, of which only the first may have a first look."""
    plan = Plan(budget_s=60, looks=(2,), rounds=4, tail_s=0.0, timeout_s=60, threads=2, fresh_blocks=0)
    here, events = survey.collect(plan.threads, "keep"), Events()
    cases = expand(["planted.workloads:tiny", "planted.workloads:heavy"], MANY)
    run = rundir.RunFolder(None, "test", here, cases)
    try:
        results = measure(cases, run, plan, here.key, events, first_look=True)
    finally:
        run.close()
    return events, {f"{result.case.workload}/{result.case.spec}": result for result in results}, run.folder


@pytest.mark.slow
def test_rows_come_before_the_others_are_built(seen: tuple[Events, dict[str, Result], Path]) -> None:
    events, _, _ = seen
    assert events.events.count("rows") == 1, "the second race has no first look"
    place = events.events.index("rows")
    before, after = events.events[:place], events.events[place:]
    assert [event for event in before if event.startswith("building")] == [
        "building eager fp32",
        "building onnxruntime fp32",
    ]
    assert [event for event in before if event.startswith("first look: block")] == [
        f"first look: block {number}" for number in (1, 2, 3)
    ]
    assert f"building {DEFAULTS} fp32" in after
    assert [row.case.spec for row in events.rows] == ["eager", "onnxruntime"]
    assert all(len(row.metrics["latency"].blocks) == 3 for row in events.rows)


@pytest.mark.slow
def test_nothing_of_it_is_kept_and_nothing_is_built_twice(
    seen: tuple[Events, dict[str, Result], Path],
) -> None:
    events, results, folder = seen
    assert all(len(result.metrics["latency"].blocks) == 2 for result in results.values())
    assert [result.plan.budget_s for result in results.values()] == [60.0] * len(results)
    builds = [event for event in events.events if event.startswith("building")]
    assert sorted(builds) == sorted(2 * [f"building {backend} fp32" for backend in MANY])
    shown, kept = events.rows[1], results["planted.workloads:tiny/onnxruntime"]
    assert kept.artefact and (folder / kept.artefact / "manifest.json").is_file()
    assert kept.deviation == shown.deviation, "the same outputs of the same artefact"
