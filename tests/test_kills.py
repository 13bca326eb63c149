"""bench/kills.py sees what it looks for: each fault planted."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import kills
from hotlap.perf.terms.case import Case, Plan
from hotlap.perf.terms.reasons import Code, Reason
from hotlap.perf.terms.result import Result, Samples, Status


def result(
    backend: str = "eager",
    code: Code | None = None,
    status: Status = "ok",
    race: str = "run/first",
    blocks: tuple[tuple[float, ...], ...] = ((1.0, 1.1), (1.2, 1.1)),
    turns: tuple[tuple[int, ...], ...] = ((1, 3), (5, 7)),
) -> Result:
    return Result(
        Case("first:make", backend),
        race,
        Plan(),
        status,
        None if code is None else Reason(code, "planted"),
        metrics={"latency": Samples("s", "lower", blocks, turns)},
    )


def by_case(*results: Result) -> dict[str, Result]:
    return {each.case.id: each for each in results}


def test_a_finished_result_that_is_gone_or_another_is_lost() -> None:
    before = by_case(result("eager"), result("pace"))
    other = result("eager", blocks=((1.0, 1.1), (1.2, 1.0)))
    assert kills.lost(before, before) == []
    assert kills.lost(before, by_case(other, result("pace"))) == [other.case.id]
    assert kills.lost(before, by_case(result("pace"))) == [other.case.id]


def test_a_race_that_is_repeated_may_give_other_results() -> None:
    before = by_case(result("eager", "interrupted", "noisy"), result("pace"))
    assert kills.finished(before) == {} and kills.lost(before, {}) == []


@pytest.mark.parametrize(
    ("blocks", "turns"),
    [
        (((1.0, 1.1), (1.2, 1.1)), ((1, 3), (3, 7))),
        (((1.0, 1.1), (1.2, 1.1)), ((5, 7), (1, 3))),
        (((1.0, 1.1), (1.0, 1.1)), ((1, 3), (5, 7))),
    ],
)
def test_a_turn_or_a_block_that_counts_twice_is_seen(
    blocks: tuple[tuple[float, ...], ...], turns: tuple[tuple[int, ...], ...]
) -> None:
    assert kills.twice(by_case(result())) == []
    assert kills.twice(by_case(result(blocks=blocks, turns=turns))) == [result().case.id]


def test_what_is_not_as_after_an_undisturbed_run_is_wrong() -> None:
    whole = {
        f"{race} {backend}": result(backend, race=race)
        for race in kills.WIDTHS
        for backend in ("eager", "onnxruntime", "pace")
    }
    assert kills.wrong(whole, 0) == []
    first, *rest = whole
    assert kills.wrong({name: whole[name] for name in rest}, 0) == ["5 results instead of 6"]
    (line,) = kills.wrong({**whole, first: result(code="crashed", status="failed")}, 0)
    assert "crashed" in line
    (line,) = kills.wrong({**whole, first: result(code="interrupted", status="noisy")}, 0)
    assert "interrupted" in line
    assert kills.wrong(whole, 4) == ["--resume exited with 4"]


def test_a_process_that_stays_is_named_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kills, "PATIENCE_S", 0.2)
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env={**os.environ, kills.VARIABLE: "planted"},
        start_new_session=True,
    )
    try:
        assert kills.processes("another") == []
        (line,) = kills.processes("planted")
        assert "time.sleep(600)" in line and process.wait(5) == -9
    finally:
        process.kill()
        process.wait()


def test_a_segment_of_a_program_that_runs_is_not_ours() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    names = [f"sem.loky-{os.getpid()}-a", f"torch_{gone.pid}_1", "psm_left"]
    assert kills.nobodys(names) == ["psm_left", f"torch_{gone.pid}_1"]


def test_half_written_files_and_a_lock_that_is_held_are_seen(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    for name in (".lock", "results.json", "results.json.part", "work/.onnx-first.abc"):
        (tmp_path / name).touch()
    assert sorted(path.name for path in kills.parts(tmp_path)) == [".onnx-first.abc", "results.json.part"]
    assert kills.locked(tmp_path) == []
    with (tmp_path / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert len(kills.locked(tmp_path)) == 1


def test_the_table_counts_tries_by_victim() -> None:
    trial = kills.Try("worker", 1.0, 0, 0, 3, [], [], [], [])
    tries = [trial, trial._replace(left=["a process"]), trial._replace(victim="parent", status=-9)]
    file = {
        "machine": "a machine",
        "command": "hotlap run",
        "undisturbed_s": 20.0,
        "tries": [trial._asdict() for trial in tries],
    }
    rows = [
        line for line in kills.table(file).splitlines() if line.startswith(("| parent", "| worker", "| all"))
    ]
    assert rows == [
        "| parent | 1 | -9: 1 | 3 | 0 | 0 | 0 | 0 |",
        "| worker | 2 | 0: 2 | 6 | 0 | 0 | 1 | 0 |",
        "| all | 3 | -9: 1, 0: 2 | 9 | 0 | 0 | 1 | 0 |",
    ]
