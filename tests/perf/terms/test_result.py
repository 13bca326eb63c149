"""Results and their file: what goes in comes out, what is damaged is refused in one line, and no
reader ever sees half a file.
"""

from __future__ import annotations

import errno
import json
import math
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotlap.perf.terms.case import Case, Plan
from hotlap.perf.terms.environment import Environment
from hotlap.perf.terms.files import write
from hotlap.perf.terms.reasons import CODES, Misuse, Reason
from hotlap.perf.terms.result import (
    Deviation,
    Distance,
    Disturbance,
    Placement,
    Result,
    Results,
    Samples,
    Task,
    encode,
    read,
)

text = st.text(max_size=4)
number = st.floats(allow_nan=False, allow_infinity=False)
count = st.integers(0, 2**63 - 1)
measured = st.floats(1e-30, 1e30)
blocks = st.lists(st.lists(measured, min_size=1, max_size=3).map(tuple), min_size=1, max_size=3).map(tuple)
reasons = st.builds(Reason, st.sampled_from(CODES), text)
better = st.sampled_from(["higher", "lower"])
samples = st.builds(
    Samples,
    text,
    better,
    blocks,
    details=st.dictionaries(text, st.one_of(number, count, text, st.none()), max_size=3),
)
counts = st.dictionaries(text, count, max_size=2)
placements = st.builds(
    Placement, text, counts, counts, st.lists(text, max_size=2).map(tuple), st.none() | reasons
)
distances = st.builds(Distance, *[number] * 6, count, count)
tasks = st.builds(Task, text, better, number, number, number, st.dictionaries(text, number, max_size=2))
environments = st.builds(
    Environment,
    cpu=text, cores=count, memory_bytes=count, isa=st.tuples(text), system=text, python=text,
    libraries=st.dictionaries(text, text, max_size=2), gpus=st.tuples(text), driver=text,
    threads=count, allocator=text, hugepages=text, commit=text, host=text,
)  # fmt: skip
cases = st.builds(Case, st.sampled_from(["a", "b:full"]), st.just("eager"), batch=st.integers(1, 9))
answers = st.builds(
    Result,
    cases,
    text,
    st.builds(Plan, seed=count, looks=st.just((3, 6))),
    st.sampled_from(["ok", "noisy", "fell_back", "verified", "skipped", "failed"]),
    reasons,
    placement=st.none() | placements,
    metrics=st.dictionaries(text, samples, max_size=2),
    absent=st.dictionaries(text, reasons, max_size=2),
    deviation=st.none()
    | st.builds(Deviation, st.dictionaries(text, distances, max_size=2), st.none() | tasks),
    warnings=st.lists(text, max_size=2).map(tuple),
).filter(lambda answer: answer.contradiction is None)
files = st.builds(
    Results,
    text,
    text,
    st.dictionaries(text, environments, max_size=2),
    st.lists(cases, max_size=2).map(tuple),
    st.dictionaries(text, text, max_size=2),
    st.lists(answers, max_size=3).map(tuple),
)

CASE, PLAN = Case("w", "eager"), Plan()
LATENCY = Samples("s", "lower", ((0.25, 0.5), (1.0,)), ((1, 3), (6,)), {"a": 1, "b": None})
OK = Result(CASE, "run/group", PLAN, "ok", metrics={"latency": LATENCY})
WHOLE = encode(Results("run", "hotlap run w", {}, (CASE,), results=(OK,)))


@given(files)
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_a_file_reads_back_with_one_line_for_each_result(tmp_path: Path, results: Results) -> None:
    content = encode(results)
    (tmp_path / "results.json").write_bytes(content)
    assert read(tmp_path / "results.json") == results
    lines = [line.rstrip(b",") for line in content.split(b"\n")[1:-2] if line]
    assert [json.loads(line)["case"]["batch"] for line in lines] == [
        result.case.batch for result in results.results
    ]


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_outputs_that_are_not_finite_can_be_written_and_read(tmp_path: Path, wrong: float) -> None:
    """The results that must not be lost:

    NaN outputs (RMSE NaN), outputs of another shape (RMSE infinite), a NaN task metric.
    """
    deviation = Deviation(
        {"real": Distance(wrong, 1e-7, 1e-6, 2.0, 1e-8, 0.0, 0, 10)},
        Task("accuracy", "higher", wrong, 0.9, 0.01),
    )
    failed = Result(CASE, "run/group", PLAN, "failed", Reason("accuracy", "NaN outputs"), deviation=deviation)
    write(tmp_path / "results.json", encode(Results("run", "", {}, results=(failed,))))
    (result,) = read(tmp_path / "results.json").results
    assert result.deviation is not None and result.deviation.task is not None
    assert not result.deviation.distances["real"].within
    assert not result.deviation.task.within


@pytest.mark.parametrize("kept", [0, 1, len(WHOLE) // 2, len(WHOLE) - 2])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    assert refusal(tmp_path, WHOLE[:kept]).startswith(
        f"{tmp_path}/results.json: not a results file of hotlap: "
    )


@pytest.mark.parametrize(
    "content",
    [
        b"\x00\xff\xfe garbage",
        b"[]",
        b'{"run": "x"}',
        WHOLE.replace(b"0.25", b"NaN"),
        WHOLE.replace(b"0.25", b"null"),
        WHOLE.replace(b"0.25", b'"\xff"'),
        WHOLE.replace(b'"eager"', b'"no such thing"'),
        WHOLE.replace(b'"status":"ok"', b'"status":"fine"'),
        WHOLE.replace(b'"status":"ok"', b'"status":"failed"'),
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    assert content != WHOLE
    assert refusal(tmp_path, content).startswith(f"{tmp_path}/results.json: not a results file of hotlap: ")


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "missing.json", "there is no such file"), (tmp_path, "Is a directory")):
        with pytest.raises(Misuse, match=words):
            read(path)


@pytest.mark.parametrize("change", [{}, {"results": {}}, {"results": [{"case": "w/eager"}]}])
def test_another_schema_is_named_whatever_else_has_changed(tmp_path: Path, change: dict[str, Any]) -> None:
    content = json.dumps({**json.loads(WHOLE), "schema": 99, **change}).encode()
    words = "schema 99, this hotlap reads 1; measure again or use the hotlap that wrote it"
    assert refusal(tmp_path, content) == f"{tmp_path}/results.json: {words}"


def refusal(folder: Path, content: bytes) -> str:
    (folder / "results.json").write_bytes(content)
    with pytest.raises(Misuse) as refused:
        read(folder / "results.json")
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("status", ["noisy", "fell_back", "verified", "skipped", "failed"])
def test_every_status_but_ok_has_a_reason(status: Any) -> None:
    with pytest.raises(ValueError, match=f"w/eager/fp32/b1/cpu/inference: status {status} needs a reason"):
        Result(CASE, "run/group", PLAN, status)
    assert Result(CASE, "run/group", PLAN, status, Reason("timeout", "")).status == status


@pytest.mark.parametrize("wrong", [{"budget_s": 0}, {"rounds": 0}, {"timeout_s": -1}, {"looks": ()}])
def test_a_plan_that_cannot_be_carried_out_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Misuse, match="a plan needs a budget"):
        Plan(**wrong)
    assert Plan(rounds=1, looks=(1,)).rounds == 1


def test_samples_are_seen_by_block_and_in_one_row() -> None:
    samples = Samples("s", "lower", ((1.0, 9.0, 2.0), (), (4.0,), (1.0,)))
    assert samples.blocks == (2.0, 4.0, 1.0)
    assert samples.flat == (1.0, 9.0, 2.0, 4.0, 1.0)
    assert samples.centre == pytest.approx(2)
    assert (samples.estimate.n, samples.estimate.method) == (3, "blocks")


def test_disturbances_are_averaged_over_all_samples() -> None:
    disturbance = Disturbance((), (), (), ((1, 2), (6,)), (), ((0.0, 0.0, 8.0), (1.0, 2.0)), (), ())
    assert disturbance.faults_per_call == 1
    assert disturbance.switches_per_sample == 3


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "results.json"
    write(path, b"old")
    monkeypatch.setattr(*{"fsync": (os, "fsync"), "rename": (Path, "replace")}[step], full)
    with pytest.raises(OSError, match="No space left"):
        write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_the_kernel_cuts_short_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write(path, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write(path, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_until_the_new_file_is_on_the_disk_a_reader_sees_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "results.json", []
    write(path, b"old")
    sync: Callable[[int], None] = os.fsync

    def watched(descriptor: int) -> None:
        sync(descriptor)
        seen.append((path.read_bytes(), os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", watched)
    write(path, b"newer")
    assert seen == [(b"old", 5)]
    assert path.read_bytes() == b"newer"
