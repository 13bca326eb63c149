"""int8, blocked fp16, offline fusions and the ladder of the onnxruntime backend."""

from __future__ import annotations

import importlib
from functools import partial

import numpy as np
import onnx
import pytest

from hotlap.perf.race import tasks
from hotlap.perf.terms.case import Case
from hotlap.perf.terms.reasons import Refusal

ort_backend = importlib.import_module("hotlap.perf.backends.onnxruntime")


@pytest.mark.parametrize(("name", "least"), [("conv", 2), ("attention", 6)])
def test_int8_computes_in_int8(run, name: str, least: int) -> None:
    ran = run(f"{name}/onnxruntime/int8/b4/cpu/inference")
    placement = ran.placement()
    assert placement.wrong is None and placement.counters["int8_nodes"] >= least
    assert any("products and convolutions quantised" in line for line in placement.evidence) and any(
        "opset 20" in line for line in placement.evidence
    )
    assert "quantise" in (ran.artefact.folder / "ledger.json").read_text()


@pytest.mark.parametrize(("name", "least"), [("attention", 6), ("recurrent", 1)])
def test_weights_alone_are_quantised_without_calibration(run, name: str, least: int) -> None:
    ran = run(f"{name}/onnxruntime/int8/b4/cpu/inference[int8:dynamic]")
    placement = ran.placement()
    assert placement.wrong is None and placement.counters["int8_nodes"] >= least
    assert any("activations rounded in each call" in line for line in placement.evidence)
    exact = run(f"{name}/onnxruntime/fp32/b4/cpu/inference").outputs[0]
    cosine = float((exact * ran.outputs[0]).sum() / np.linalg.norm(exact) / np.linalg.norm(ran.outputs[0]))
    assert 0.99 < cosine < 1.0


def test_a_file_without_such_weights_and_other_precisions_are_refused(run) -> None:
    with pytest.raises(Refusal, match=r"unsupported_op: int8:dynamic quantises the weights of MatMul"):
        run("onlyconv/onnxruntime/int8/b4/cpu/inference[int8:dynamic]")
    reason = ort_backend.supports(Case.parse("conv/onnxruntime/fp32/b4/cpu/inference[int8:dynamic]"))
    assert reason is not None and "is for --precisions int8 on the CPU" in reason.detail


@pytest.mark.parametrize(
    ("target", "bits"), [("cpu/inference", 7), ("cuda:0/inference[provider:TensorrtExecutionProvider]", 8)]
)
def test_weights_have_7_bits_where_the_cpu_that_runs_them_needs_it(
    workload, tmp_path, monkeypatch: pytest.MonkeyPatch, target: str, bits: int
) -> None:
    monkeypatch.setattr(ort_backend.cpu, "flags", lambda: frozenset({"avx2"}))
    case = Case.parse(f"conv/onnxruntime/int8/b2/{target}")
    (tmp_path / "case").mkdir()
    _, words = ort_backend.written(workload(case), case, tmp_path / "case", partial(tasks.phases, {}))
    assert f"weights in {bits} bits" in words


@pytest.mark.numeric
def test_int8_is_as_near_as_eight_bits_are(run) -> None:
    exact = run("conv/onnxruntime/fp32/b4/cpu/inference").outputs[0]
    rounded = run("conv/onnxruntime/int8/b4/cpu/inference").outputs[0]
    cosine = float((exact * rounded).sum() / np.linalg.norm(exact) / np.linalg.norm(rounded))
    assert 0.99 < cosine < 1.0, "near, and not the fp32 model under another name"


def test_an_fp32_file_under_the_name_of_int8_is_caught(run) -> None:
    """The defect planted: the build leaves the export as it is."""
    ran = run("conv/onnxruntime/int8/b4/cpu/inference")
    fp32 = run("conv/onnxruntime/fp32/b4/cpu/inference").artefact.folder / "model.onnx"
    (ran.artefact.folder / "model.onnx").write_bytes(fp32.read_bytes())
    wrong = ran.placement().wrong
    assert (
        wrong is not None
        and wrong.code == "unsupported_precision"
        and "no node computed in it" in wrong.detail
    )


def test_int8_leaves_the_export_that_other_cases_share(run, tmp_path) -> None:
    run("conv/onnxruntime/int8/b4/cpu/inference")
    (shared,) = tmp_path.glob("onnx-conv-fp32/model.onnx")
    assert "QuantizeLinear" not in {node.op_type for node in onnx.load(shared).graph.node}


def test_blocked_fp16_keeps_steep_operators_in_fp32(workload, tmp_path) -> None:
    case = Case.parse("attention/onnxruntime/fp16/b2/cuda:0/inference[fp16:blocked]")
    folder = tmp_path / "case"
    folder.mkdir()
    results = list(ort_backend.verify(workload(case), case, folder, partial(tasks.phases, {})))
    assert [proven.rung for proven in results] == ["L0", "L1"] and "stay in fp32" in results[1].evidence
    model = onnx.load(folder / "model.onnx")
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]
    }
    steep = [node for node in model.graph.node if node.op_type in ort_backend.FP32_ONLY]
    assert steep and kinds[model.graph.output[0].name] == onnx.TensorProto.FLOAT16
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    assert all(made_by.get(node.input[0]) in ("Cast", *ort_backend.FP32_ONLY) for node in steep), (
        "what comes in is cast to fp32"
    )
    (outputs,) = results[1].lowered(tuple(value.numpy() for value in workload(case).inputs))
    np.testing.assert_allclose(
        outputs, workload(case).module(*workload(case).inputs).numpy(), rtol=0.02, atol=0.02
    )


def test_offline_fusions_are_counted_and_change_no_answer(run) -> None:
    fused = run("attention/onnxruntime/fp32/b2/cpu/inference[fusion:transformer]")
    plain = run("attention/onnxruntime/fp32/b2/cpu/inference")
    assert any(line.startswith("offline fusions: ") for line in fused.placement().evidence)
    np.testing.assert_allclose(fused.outputs[0], plain.outputs[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ("w/onnxruntime/int8/b1/cuda:0/inference", "unsupported_precision"),
        ("w/onnxruntime/fp32/b1/cuda:0/inference[fp16:blocked]", "unsupported_precision"),
        ("w/onnxruntime/int8/b1/cpu/inference", None),
        ("w/onnxruntime/int8/b1/cuda:0/inference[provider:TensorrtExecutionProvider]", None),
    ],
)
def test_what_it_takes(case: str, code: str | None) -> None:
    reason = ort_backend.supports(Case.parse(case))
    assert (None if reason is None else reason.code) == code
