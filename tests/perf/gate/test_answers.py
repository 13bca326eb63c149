"""Whether HEAD's answers are BASE's, on what the oracle stores of either side."""

from __future__ import annotations

import math
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from hotlap.perf.gate import answers, judge
from hotlap.perf.gate.policy import Policy
from hotlap.perf.readers.side import Known
from hotlap.perf.terms.result import Task
from hotlap.perf.terms.verdict import Finding

CASE = "net/eager/fp32/b4/cpu/inference"
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(3, 4, 8)).astype(np.float32)
LOGITS = 5 * RNG.normal(size=(3, 4, 300))
EAGER = LOGITS.astype(np.float32)


def side(folder: Path, *outputs: np.ndarray, inputs: np.ndarray = INPUTS, kinds: str = "real random") -> Path:
    """A folder of references as the oracle leaves it."""
    folder.mkdir()
    for kind in kinds.split():
        arrays = {f"ref{index}": value for index, value in enumerate(outputs)}
        arrays |= {f"eager-fp32-{index}": value.astype(np.float32) for index, value in enumerate(outputs)}
        np.savez(folder / f"{kind}.npz", in0=inputs, **arrays)
    return folder


def finding_of(base: Path, head: Path, policy: Policy | None = None) -> Finding:
    rules = (policy or Policy()).of(CASE)
    return answers.finding(CASE, "fp32", base, head, 64, ("logits",), rules)


def test_the_same_answers_pass_and_say_so(tmp_path: Path) -> None:
    reordered = LOGITS * (1 + 1e-15)
    finding = finding_of(side(tmp_path / "base", LOGITS), side(tmp_path / "head", reordered))
    assert finding.verdict == "pass" and finding.base == finding.head == 0
    assert "the same answers" in finding.evidence[0]


def test_another_answer_is_a_regression_that_says_where_and_how_to_accept_it(tmp_path: Path) -> None:
    head = LOGITS.copy()
    head[1] *= 1.5
    base = side(tmp_path / "base", LOGITS)
    finding = finding_of(base, side(tmp_path / "head", head))
    share = float(np.sqrt(np.mean((head - LOGITS) ** 2) / np.mean(LOGITS**2)))
    assert finding.verdict == "regression" and finding.head == pytest.approx(share)
    apart, accepting = finding.evidence
    assert apart == f"outputs differ: rmse {share:.2g} of base's scale at logits on real inputs"
    line = accepting.partition("gate.toml: ")[2].partition(" (")[0]
    accepted = msgspec.toml.decode(line, type=Policy)
    assert finding_of(base, tmp_path / "head", accepted).verdict == "pass"
    narrow = Policy(tolerance={"outputs": share / 2})
    assert finding_of(base, tmp_path / "head", narrow).verdict == "regression"


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ((LOGITS[..., :10],), r"logits on real inputs has shape \(4, 10\) where base has \(4, 300\)"),
        ((LOGITS, LOGITS), "2 outputs where base has 1"),
        ((np.full_like(LOGITS, np.nan),), "outputs differ"),
        ((np.zeros_like(LOGITS),), "outputs differ: rmse 1 of base's scale"),
    ],
    ids=["shape", "count", "nan", "zero"],
)
def test_what_cannot_be_the_same_is_a_regression(
    outputs: tuple[np.ndarray, ...], words: str, tmp_path: Path
) -> None:
    finding = finding_of(side(tmp_path / "base", LOGITS), side(tmp_path / "head", *outputs))
    assert finding.verdict == "regression"
    line = finding.evidence[1].partition("gate.toml: ")[2].partition(" (")[0]
    accepting = msgspec.toml.decode(line, type=Policy)
    assert finding_of(tmp_path / "base", tmp_path / "head", accepting).verdict == "pass"
    assert re.search(words, finding.evidence[0]), finding.evidence


def test_an_output_of_zeros_is_held_to_what_is_absolute(tmp_path: Path) -> None:
    zeros = np.zeros((3, 4, 300))
    base = side(tmp_path / "base", zeros)
    assert finding_of(base, side(tmp_path / "same", zeros)).verdict == "pass"
    assert finding_of(base, side(tmp_path / "head", zeros + 0.1)).verdict == "regression"


def test_classes_are_right_or_wrong(tmp_path: Path) -> None:
    classes = LOGITS.argmax(-1)
    other = classes.copy()
    other[0, 0] += 1
    base = side(tmp_path / "base", classes)
    assert finding_of(base, side(tmp_path / "same", classes)).verdict == "pass"
    assert finding_of(base, side(tmp_path / "head", other)).verdict == "regression"


def test_inputs_that_differ_are_left_out_and_none_in_common_is_not_green(tmp_path: Path) -> None:
    base = side(tmp_path / "base", LOGITS)
    part = side(tmp_path / "part", 2 * LOGITS, inputs=INPUTS + 1, kinds="real")
    side(tmp_path / "random", LOGITS, kinds="random")
    (tmp_path / "random" / "random.npz").rename(part / "random.npz")
    assert finding_of(base, part).verdict == "pass"
    other = side(tmp_path / "other", LOGITS, inputs=INPUTS[:, :2])
    finding = finding_of(base, other)
    assert finding.verdict == "inconclusive" and "other inputs" in finding.evidence[0]
    assert "tolerance.outputs = 10" in finding.evidence[1]
    assert finding_of(base, other, Policy(tolerance={"outputs": 10})).verdict == "pass"


def known(value: float | None, budget: float = 0.005, better: str = "higher") -> Known:
    task = None if value is None else Task("accuracy", better, value, 0.9, budget)  # type: ignore[arg-type]
    return Known(CASE, {}, task=task)


@pytest.mark.parametrize(
    ("base", "head", "verdict"),
    [
        (known(1.0), known(0.0), "regression"),
        (known(0.9), known(0.896), "pass"),
        (known(0.9), known(0.894), "regression"),
        (known(0.9), known(0.95), "pass"),
        (known(7.0, 0.1, "lower"), known(7.2, 0.1, "lower"), "regression"),
        (known(7.0, 0.1, "lower"), known(6.0, 0.1, "lower"), "pass"),
        (known(0.9), known(float("nan")), "regression"),
        (known(0.9), known(None), "inconclusive"),
    ],
)
def test_the_task_metric_is_gated_by_its_own_budget(base: Known, head: Known, verdict: str) -> None:
    (finding,) = judge.structure(base, head, Policy().of(CASE))
    assert finding.verdict == verdict
    if verdict == "regression" and head.task is not None and not math.isnan(head.task.value):
        spoken, accepting = finding.evidence
        assert "accuracy may be worse by" in spoken
        policy = msgspec.toml.decode(accepting.partition("gate.toml: ")[2].partition(" (")[0], type=Policy)
        (accepted,) = judge.structure(base, head, policy.of(CASE))
        assert accepted.verdict == "pass"


def test_a_policy_decides_over_the_budget_of_a_workload() -> None:
    rules = Policy(tolerance={"task": 0.5}).of(CASE)
    (finding,) = judge.structure(known(0.9), known(0.6), rules)
    assert finding.verdict == "pass"
    assert judge.structure(known(None), known(0.6), Policy().of(CASE)) == []
    assert judge.structure(known(None), known(None), Policy().of(CASE)) == []
