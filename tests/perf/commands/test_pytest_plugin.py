"""`pytest bench` as a user runs it: in a repository of their own, with only hotlap installed,
through pytest-benchmark's own files and commands.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Over 20 s on two quiet cores.
pytestmark = pytest.mark.slow

MODULE = """
import torch

def make():
    net = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    return net, torch.randn(1, 16)

def broken():
    return torch.nn.Linear(3, 3), torch.randn(1, 4)
"""
BENCH = """
import hotlap
import pytest

BACKENDS = ["eager", "null[takes:1ms]", "onnxruntime"]

@pytest.mark.parametrize("case", hotlap.cases("shapes:make", backends=BACKENDS))
def test_speed(lap, case):
    assert lap(case).status in ("ok", "noisy")

@pytest.mark.parametrize("case", hotlap.cases("shapes:broken", backends=["eager"]))
def test_broken(lap, case):
    lap(case)

@pytest.mark.parametrize("case", hotlap.cases("shapes:make", backends=["eager"], target="cuda:0"))
def test_gpu(lap, case):
    lap(case)
"""

ASYNC = """
import hotlap
import pytest

@pytest.mark.asyncio
@pytest.mark.parametrize("case", hotlap.cases("shapes:make", backends=["eager"]), ids=["an id: ü/[x] %s"])
async def test_async(lap, case):
    assert lap(case).status in ("ok", "noisy")
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "shapes.py").write_text(MODULE)
    (folder / "bench").mkdir()
    (folder / "bench" / "test_shapes.py").write_text(BENCH)
    return folder


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # One block: what the files say does not depend on how many there are.
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--hotlap-budget=1s", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)


@pytest.fixture(scope="module")
def report(repository: Path) -> tuple[str, dict[str, Any]]:
    done = run_pytest(repository, "bench", "--benchmark-json=out.json")
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout, json.loads((repository / "out.json").read_text())


def test_each_case_is_a_benchmark_with_its_own_samples(report: tuple[str, dict[str, Any]]) -> None:
    _, file = report
    assert [benchmark["extra_info"]["hotlap"]["case"]["backend"] for benchmark in file["benchmarks"]] == [
        "eager",
        "null",
        "onnxruntime",
    ]
    for benchmark in file["benchmarks"]:
        samples = [
            value
            for block in benchmark["extra_info"]["hotlap"]["metrics"]["latency"]["values"]
            for value in block
        ]
        assert benchmark["stats"]["data"] == samples
        assert benchmark["stats"]["min"] == min(samples)
        assert benchmark["group"] == "shapes:make/b1/cpu/inference"
        assert benchmark["options"]["timer"] == "replayed"


def test_cases_of_a_group_share_one_race(report: tuple[str, dict[str, Any]]) -> None:
    _, file = report
    assert len({benchmark["extra_info"]["hotlap"]["race_id"] for benchmark in file["benchmarks"]}) == 1
    turns = [
        number
        for benchmark in file["benchmarks"]
        for block in benchmark["extra_info"]["hotlap"]["metrics"]["latency"]["turns"]
        for number in block
    ]
    assert len(set(turns)) == len(turns)


def test_what_has_no_time_is_in_the_files_own_section(report: tuple[str, dict[str, Any]]) -> None:
    text, file = report
    statuses = {
        (result["case"]["workload"], result["case"]["backend"], result["case"]["target"]): result["status"]
        for result in file["hotlap"]["results"]
    }
    assert statuses[("shapes:broken", "eager", "cpu")] == "failed"
    assert statuses[("shapes:make", "eager", "cuda:0")] == "skipped"
    assert "forward fails" in text and "no_device" in text
    assert "3 passed, 1 failed, 1 skipped" in text or "1 failed, 3 passed, 1 skipped" in text


def test_no_stat_is_nan_or_null(report: tuple[str, dict[str, Any]]) -> None:
    _, file = report
    for benchmark in file["benchmarks"]:
        assert all(
            value is not None and value == value
            for value in benchmark["stats"].values()
            if not isinstance(value, list)
        )


def test_pytest_benchmarks_own_compare_reads_the_file(
    repository: Path, report: tuple[str, dict[str, Any]]
) -> None:
    compared = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", "out.json", "--columns=median"],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert compared.returncode == 0, compared.stderr
    assert compared.stdout.count("test_speed") == 3


def test_selection_and_compare_with_a_stored_run(repository: Path) -> None:
    stored = run_pytest(repository, "bench", "-k", "null", "--benchmark-autosave")
    assert "1 passed" in stored.stdout, stored.stdout + stored.stderr
    again = run_pytest(repository, "bench", "-k", "null", "--benchmark-compare", "--benchmark-json=only.json")
    assert "1 passed" in again.stdout and "Comparing against" in again.stdout + again.stderr
    (only,) = json.loads((repository / "only.json").read_text())["benchmarks"]
    assert only["extra_info"]["hotlap"]["case"]["backend"] == "null"


def test_a_file_is_written_when_nothing_was_timed(repository: Path) -> None:
    done = run_pytest(repository, "bench", "-k", "gpu", "--benchmark-json=none.json")
    assert "1 skipped" in done.stdout, done.stdout + done.stderr
    file = json.loads((repository / "none.json").read_text())
    assert file["benchmarks"] == [] and file["machine_info"] and "commit_info" in file
    assert [
        result["reason"]["code"]
        for result in file["hotlap"]["results"]
        if result["case"]["backend"] == "eager"
    ] == ["no_device"]


def test_skip_races_nothing_and_only_runs_it(repository: Path) -> None:
    skipped = run_pytest(repository, "bench", "--benchmark-skip")
    assert "5 skipped" in skipped.stdout and skipped.returncode == 0, skipped.stdout + skipped.stderr
    assert "racing" not in skipped.stdout
    (repository / "bench" / "test_other.py").write_text("def test_other():\n    raise AssertionError\n")
    try:
        only = run_pytest(repository, "bench", "-k", "null or other", "--benchmark-only")
    finally:
        (repository / "bench" / "test_other.py").unlink()
    assert "1 passed, 1 skipped" in only.stdout, only.stdout + only.stderr


@pytest.mark.parametrize("options", [("--benchmark-disable",), ("-n", "2")], ids=" ".join)
def test_where_benchmarks_are_disabled_cases_are_checked_and_called_once(
    options: tuple[str, ...], repository: Path
) -> None:
    done = run_pytest(
        repository, "bench", "-k", "broken or (speed and eager)", *options, "--benchmark-json=off.json"
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "hotlap: racing" not in done.stdout
    if options[0] == "-n":
        assert "automatically disabled because xdist" in done.stdout + done.stderr
    else:
        assert "hotlap: checking, not racing (benchmarks are disabled), 1 cases of shapes:make" in done.stdout
    assert (
        not (repository / "off.json").exists()
        or not json.loads((repository / "off.json").read_text())["benchmarks"]
    )


def test_what_cannot_be_measured_is_said_before_anything_is(repository: Path) -> None:
    without = run_pytest(repository, "bench", "-p", "no:benchmark")
    assert without.returncode == 4 and "-p no:benchmark switches off" in without.stderr
    (repository / "bench" / "test_wrong.py").write_text(BENCH.replace("shapes:", "shape:"))
    try:
        wrong = run_pytest(repository, "bench/test_wrong.py")
        chosen = run_pytest(repository, "bench/test_wrong.py", "-k", "nothing")
    finally:
        (repository / "bench" / "test_wrong.py").unlink()
    assert wrong.returncode == 4 and "no module named 'shape' here" in wrong.stderr
    assert chosen.returncode == 5  # what is deselected is not looked at


def test_a_histogram_has_every_case(repository: Path) -> None:
    done = run_pytest(repository, "bench", "-k", "null", "--benchmark-histogram=boxes")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert "null" in next(repository.glob("boxes*.svg")).read_text()


def test_a_coroutine_with_an_odd_id_is_measured_where_something_runs_it(repository: Path) -> None:
    (repository / "bench" / "test_async.py").write_text(ASYNC)
    try:
        run = run_pytest(repository, "bench/test_async.py", "--benchmark-json=async.json")
        without = run_pytest(repository, "bench/test_async.py", "-p", "no:asyncio", "-W", "ignore")
    finally:
        (repository / "bench" / "test_async.py").unlink()
    assert "1 passed" in run.stdout, run.stdout + run.stderr
    (benchmark,) = json.loads((repository / "async.json").read_text())["benchmarks"]
    assert benchmark["stats"]["data"] and benchmark["name"].startswith("test_async[an id: ")
    assert without.returncode == 1 and "async def functions are not natively supported" in without.stdout
    assert "hotlap: racing" not in without.stdout
