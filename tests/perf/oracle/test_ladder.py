"""The ladder: rungs that are kept whatever happens, the oracle on the lowered graph, and results
that carry no time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hotlap.perf.lookup import plugins
from hotlap.perf.measure import answer
from hotlap.perf.oracle import ladder, reference
from hotlap.perf.oracle.ladder import Yardstick, climb
from hotlap.perf.reports import matrix
from hotlap.perf.terms.case import Case, Evaluation, Plan, Workload
from hotlap.perf.terms.contract import Proven
from hotlap.perf.terms.reasons import Reason, Refusal
from hotlap.perf.terms.result import Placement, Results
from hotlap.perf.terms.work import Subject, Work

CASE = Case("w", "tensorrt", "fp16", 2, "sm_89")
SETTING = answer.Setting("race", Plan(), "here")
WORK = Work(0, 1, 1, 1, "row", True)
GONE = Reason("no_device", "sm_89 is an architecture")


@pytest.fixture
def subject() -> Workload:
    torch.manual_seed(0)
    module = nn.Linear(4, 3).eval().requires_grad_(False)
    images = torch.randn(9, 4)

    def score(outputs: tuple[np.ndarray, ...]) -> dict[str, float]:
        return {"agreement": float((outputs[0].argmax(-1) == module(images).numpy().argmax(-1)).mean())}

    return Workload(
        "w", module, (images[:2],), evaluate=Evaluation((images,), score, "agreement", "higher", 0.05, 0.2)
    )


@pytest.fixture
def yardstick(tmp_path: Path, subject: Workload) -> Any:
    def make(precision: str, with_task: bool = True) -> Yardstick:
        oracle = tmp_path / "oracle"
        oracle.mkdir(exist_ok=True)
        of_reference = reference.refer(subject, 2, [precision], "cpu", oracle, 1).subject
        task = of_reference.task if with_task else None
        return Yardstick(oracle, precision, of_reference.work.terms, task, subject.evaluate, 2)

    return make


def right(arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    torch.manual_seed(0)
    return (nn.Linear(4, 3)(torch.tensor(arrays[0])).detach().numpy(),)


def wrong(arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return (right(arrays)[0] + np.float32(0.3),)


def backwards(arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return (-right(arrays)[0],)


def rungs(lowered: Any, ends: Refusal | None = None) -> Iterator[Proven]:
    yield Proven("L0", "imported")
    yield Proven("L3", "lowered", lowered=lowered)
    if ends is not None:
        raise ends
    yield Proven("L5", "built", Placement("fp16", {"fp16": 3}, {"engines": 1}))


def test_all_rungs_and_what_was_found(tmp_path: Path, yardstick: Any) -> None:
    spent = {"export": 1.5}
    reached = climb(rungs(right), tmp_path, yardstick("fp32"), spent)
    assert (
        [proof.rung for proof in reached.proofs] == ["L0", "L3", "L5"]
        and reached.stopped is None
        and reached.build_s == spent
    )
    assert reached.deviation.task.value == 1.0 and reached.deviation.distances["random"].within
    assert reached == ladder.read(tmp_path), "what was found is in the folder"
    result = answer.proven(SETTING, CASE, reached, GONE, Subject(WORK, "random, seed 0"))
    assert (result.status, result.verified_to, result.metrics) == (
        "verified",
        "L5",
        {},
    ) and "proven to L5" in result.reason.detail
    assert (
        result.placement.counters["artefact_bytes"] == reached.artefact_bytes
        and result.proofs == reached.proofs
        and result.warnings == ("weights: random, seed 0",)
    )


def test_a_lowered_graph_with_wrong_outputs_is_no_rung(tmp_path: Path, yardstick: Any) -> None:
    reached = climb(rungs(wrong), tmp_path, yardstick("fp32"), {})
    assert reached.rung == "L0" and reached.stopped.code == "accuracy" and reached.deviation is not None
    result = answer.proven(SETTING, CASE, reached, GONE, Subject(WORK, "w"))
    assert (result.status, result.verified_to, result.reason.code) == ("failed", "L0", "accuracy")


@pytest.mark.parametrize(("lowered", "passes"), [(right, True), (wrong, True), (backwards, False)])
def test_of_int8_the_task_metric_decides(tmp_path: Path, yardstick: Any, lowered: Any, passes: bool) -> None:
    """An offset common to all classes changes no decision; signs the wrong way round change all."""
    reached = climb(rungs(lowered), tmp_path, yardstick("int8"), {})
    assert (reached.stopped is None) == passes and (
        passes or "agreement on the validation split" in reached.stopped.detail
    )


def test_of_int8_without_a_task_metric_the_distance_decides(tmp_path: Path, yardstick: Any) -> None:
    assert climb(rungs(right), tmp_path, yardstick("int8", with_task=False), {}).stopped is None
    assert climb(rungs(wrong), tmp_path, yardstick("int8", with_task=False), {}).stopped.code == "accuracy"


def test_a_refusal_keeps_the_rungs_below(tmp_path: Path, yardstick: Any) -> None:
    reached = climb(rungs(right, Refusal("unsupported_op", "operator Det")), tmp_path, yardstick("fp32"), {})
    assert reached.rung == "L3" and reached.stopped == Reason("unsupported_op", "operator Det")


def test_the_end_of_the_process_keeps_the_rungs_below(tmp_path: Path) -> None:
    """As TensorRT's own crashes would end it: the file is written after each rung."""
    code = f"""
import os, signal
from pathlib import Path
from hotlap.perf.terms.contract import Proven
from hotlap.perf.oracle.ladder import climb
def rungs():
    yield Proven("L0", "imported")
    yield Proven("L1", "exported")
    os.kill(os.getpid(), signal.SIGSEGV)
climb(rungs(), Path({str(tmp_path)!r}), None, {{}})
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGSEGV
    assert [proof.rung for proof in ladder.read(tmp_path).proofs] == ["L0", "L1"]
    assert ladder.read(tmp_path / "nothing").rung == "L0"


def test_every_back_end_with_a_ladder_is_one_for_gpus() -> None:
    """A target that is no device must reach verify, not a skip: available says no_device, and only
    then.
    """
    climbing = [
        name for name in plugins.modules("hotlap.backends") if hasattr(plugins.backend(name), "verify")
    ]
    assert {"tensorrt", "onnxruntime"} <= set(climbing)
    for name in climbing:
        reason = plugins.backend(name).available("sm_89")
        assert reason is None or reason.code in ("no_device", "dep_missing"), f"{name}: {reason}"


def test_the_matrix_has_no_empty_cell_and_every_reason(tmp_path: Path, yardstick: Any) -> None:
    reached = climb(rungs(right), tmp_path, yardstick("fp32"), {"build": 0.5})
    proven = answer.proven(SETTING, CASE, reached, GONE, Subject(WORK, "w"))
    two = answer.unmeasured(
        SETTING,
        Case("bench.public:net", "eager", "fp16", 2, "sm_89"),
        Reason("unsupported_op", "bench.public:net has Det"),
    )
    text = matrix.markdown(Results("run", "hotlap run", {}, results=(proven, two)))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(cell.strip() for row in rows for cell in row.strip("|").split("|"))
    assert "| w b2 | L5; 500 ms, " in text.replace("| w |", "| w b2 |")
    assert (
        "| net | not asked | failed: unsupported_op (1) |" in text
        and "1. failed: unsupported_op: the model has Det" in text
    )
    assert "L5 kernels or engine built for the architecture" in text


def test_the_matrix_has_rows_and_columns_in_the_order_that_was_asked_for() -> None:
    """Results are stored as they are settled: what is skipped comes first."""
    command = [
        Case(name, backend, precision)
        for name in ("b", "a")
        for backend in ("eager", "openvino")
        for precision in ("fp32", "int8")
    ]
    settled = [
        answer.unmeasured(SETTING, case, Reason("no_device", "not here"))
        for case in sorted(
            command, key=lambda case: (case.workload, case.precision == "fp32", case.backend != "openvino")
        )
    ]
    text = matrix.markdown(Results("run", "hotlap run", {}, asked=tuple(command), results=tuple(settled)))
    assert text.count("| model | eager | openvino |\n|---|---|---|\n| b |") == 2
    text = matrix.markdown(Results("run", "hotlap run", {}, asked=tuple(command), results=tuple(settled[:5])))
    assert "not yet" in text and "not asked" not in text


def test_cells_of_the_matrix_share_a_reason_that_differs_in_its_width_only() -> None:
    def wide(name: str, share: str) -> Any:
        return answer.unmeasured(
            SETTING,
            Case(name, "eager"),
            Reason("wide_interval", f"the ratio to eager is known to {share} only; raise --budget"),
        )

    text = matrix.markdown(Results("run", "hotlap run", {}, results=(wide("a", "7%"), wide("b", "12%"))))
    assert (
        text.count("wide_interval (1)") == 2
        and "1. failed: wide_interval: the ratio to eager is known to its ± only; raise --budget" in text
        and "2. " not in text
    )
