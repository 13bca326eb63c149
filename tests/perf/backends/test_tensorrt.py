"""TensorRT without a GPU: engines that are really built for named architectures, what is refused
and in which words, placement by the builder's own list of layers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hotlap.perf.backends import tensorrt
from hotlap.perf.lowering import engine_cache, export, exporters, torch_trt, trt_engine
from hotlap.perf.race import tasks
from hotlap.perf.terms.case import Case, Workload
from hotlap.perf.terms.contract import Proven
from hotlap.perf.terms.reasons import Refusal

# Over 20 s on two quiet cores.
pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
needs_trt = pytest.mark.skipif(
    trt_engine.installed() != "tensorrt_rtx",
    reason="tensorrt_rtx is not installed: pip install 'hotlap[tensorrt-rtx]'",
)


class Det(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, N, N) -> (B)
        return torch.linalg.det(x) + 1


@pytest.fixture(autouse=True)
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOTLAP_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def climb(tmp_path: Path, workload):
    """climb(case id): the rungs, and the reason if it was refused."""

    def go(text: str, model_of_case: Workload | None = None) -> tuple[list[Proven], Refusal | None]:
        case, steps = Case.parse(text), []
        folder = Path(tempfile.mkdtemp(dir=tmp_path)) / "race" / "entrant"
        folder.mkdir(parents=True)
        try:
            steps.extend(
                tensorrt.verify(model_of_case or workload(case), case, folder, partial(tasks.phases, {}))
            )
        except Refusal as refusal:
            return steps, refusal
        return steps, None

    return go


def rungs(steps: list[Proven]) -> list[str]:
    return [proven.rung for proven in steps]


@needs_trt
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16"])
@pytest.mark.parametrize("name", ["conv", "attention"])
def test_an_engine_for_an_architecture_that_is_not_here(
    climb, tmp_path: Path, name: str, precision: str
) -> None:
    steps, refused = climb(f"{name}/tensorrt/{precision}/b4/sm_89/inference")
    assert refused is None and rungs(steps) == ["L0", "L1", "L2", "L3", "L5"]
    placement = steps[-1].placement
    assert placement.wrong is None and placement.counters["engines"] == 1 and placement.counters["nodes"] > 0
    assert placement.ran_on[precision] > placement.counters["nodes_other_precision"]
    assert "engine for sm_89 by tensorrt_rtx" in steps[-1].evidence and "4x" in steps[-1].evidence
    (engine,) = tmp_path.rglob(f"race/entrant/{tensorrt.ENGINE}")
    assert f"{engine.stat().st_size:,} bytes" in steps[-1].evidence


@needs_trt
def test_the_lowered_graph_is_the_models_function(climb, workload) -> None:
    case = Case.parse("conv/tensorrt/fp32/b4/sm_89/inference")
    steps, _ = climb(case.id)
    lowered = next(proven.lowered for proven in steps if proven.rung == "L3")
    model_of_case = workload(case)
    np.testing.assert_allclose(
        lowered(tuple(value.numpy() for value in model_of_case.inputs))[0],
        model_of_case.module(*model_of_case.inputs).numpy(),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.numeric
@needs_trt
def test_int8_products_run_in_int8(climb) -> None:
    steps, refused = climb("attention/tensorrt/int8/b4/sm_89/inference")
    assert refused is None and steps[-1].rung == "L5"
    assert (
        steps[-1].placement.ran_on["int8"] == 6
        and "int8: 6 products" in steps[1].evidence
        and "convolutions stay in fp32" in steps[1].evidence
    )


@needs_trt
def test_int8_that_would_run_in_fp32_is_no_int8(climb) -> None:
    """tensorrt_rtx has no int8 convolutions: a network of them is refused at the engine, with the
    count.
    """
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 2),
        nn.Flatten(),
        nn.Linear(72, 4),
    ).eval()
    steps, refused = climb(
        "net/tensorrt/int8/b2/sm_89/inference", Workload("net", net, (torch.randn(2, 3, 8, 8),))
    )
    assert (
        rungs(steps)[-1] == "L3"
        and refused.reason.code == "unsupported_precision"
        and "3 in fp32, 1 in int8" in refused.reason.detail
    )


@needs_trt
def test_what_tensorrt_does_not_take_is_named(climb) -> None:
    steps, refused = climb(
        "det/tensorrt/fp32/b2/sm_89/inference", Workload("det", Det().eval(), (torch.randn(2, 4, 4),))
    )
    assert (
        rungs(steps) == ["L0", "L1"]
        and refused.reason.code == "unsupported_op"
        and "operator Det" in refused.reason.detail
    )


@needs_trt
@pytest.mark.parametrize(
    ("target", "precision", "code", "words", "rung"),
    [
        ("sm_75", "bf16", "unsupported_precision", "no b16 in hardware", "L3"),
        ("sm_90", "fp32", "unsupported_target", "it builds for sm_120", "L3"),
        ("cuda:0", "fp32", None, "", "L3"),
    ],
)
def test_where_it_ends_and_why(
    climb, target: str, precision: str, code: str | None, words: str, rung: str
) -> None:
    steps, refused = climb(f"conv/tensorrt/{precision}/b1/{target}/inference")
    assert rungs(steps)[-1] == rung
    assert (None if refused is None else refused.reason.code) == code and (
        refused is None or words in refused.reason.detail
    )


@needs_trt
def test_shapes_are_a_range_where_asked_for(climb) -> None:
    fixed, _ = climb("conv/tensorrt/fp16/b4/sm_89/inference")
    ranged, _ = climb("conv/tensorrt/fp16/b4/sm_89/inference[shapes:dynamic]")
    assert (
        "shapes in0 4x3x8x8" in fixed[-1].evidence and "shapes in0 1x3x8x8 to 16x3x8x8" in ranged[-1].evidence
    )
    assert len(list(engine_cache.folder().iterdir())) == 2, "another range is another engine"


@needs_trt
def test_the_second_build_comes_from_the_cache_and_says_so(climb, tmp_path: Path) -> None:
    first, _ = climb("conv/tensorrt/fp16/b4/sm_89/inference")
    again, _ = climb("conv/tensorrt/fp16/b4/sm_89/inference[cudagraph:off]")
    assert "from the cache" not in first[-1].evidence and "from the cache" in again[-1].evidence
    assert first[-1].placement.ran_on == again[-1].placement.ran_on
    (entry,) = engine_cache.folder().iterdir()
    (entry / engine_cache.ENGINE).write_bytes(b"of another model")
    mended, _ = climb("conv/tensorrt/fp16/b4/sm_89/inference")
    assert "damaged" in mended[-1].evidence and "from the cache" not in mended[-1].evidence
    assert (entry / engine_cache.ENGINE).stat().st_size > 1000, "and stands in the cache as it should"


@needs_trt
def test_another_library_another_architecture_and_other_weights_are_other_engines(
    climb, workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    climb("conv/tensorrt/fp16/b4/sm_89/inference")
    other, _ = climb("conv/tensorrt/fp16/b4/sm_80/inference")
    model_of_case = workload(Case.parse("conv/tensorrt/fp16/b4/sm_89/inference"))
    model_of_case.module.head.bias.data += 1
    weights, _ = climb("weights/tensorrt/fp16/b4/sm_89/inference", model_of_case)
    monkeypatch.setattr(trt_engine, "version", lambda trt: "tensorrt_rtx 9.9")
    library, _ = climb("conv/tensorrt/fp16/b4/sm_89/inference")
    assert not any("from the cache" in steps[-1].evidence for steps in (other, weights, library))


def test_layers_are_read_in_both_forms() -> None:
    """tensorrt_rtx 1.6's list, and the form of TensorRT 10 (its developer guide, engine inspector)
    with Format/Datatype and no constants.
    """
    text = """Layers:
Name: a_myl0_1, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [4,16], Strides: [16,1], Datatype: Half, \
Format: (Linear) Row major }], Constants: [], Outputs: \
[ { Name: y, Dimensions: [4,8], Datatype: Half, Format: (Linear) Row major }], \
TacticName: t, StreamId: 0, Metadata: [ONNX Layer: node_a]
Name: b, LayerType: CaskConvolution, Inputs: [ { Name: y, Dimensions: [1,8,4,4], \
Format/Datatype: Channel major FP32 format where C % 4 == 0 }], Outputs: \
[ { Name: z, Dimensions: [1,8,2,2], Format/Datatype: Row major linear FP32 }], \
ParameterType: Convolution, TacticName: k
Name: c, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0
"""
    placement = trt_engine.placement("fp16", text, 7)
    assert (
        placement.ran_on == {"fp16": 1, "fp32": 1}
        and placement.counters == {"engines": 1, "nodes": 3, "nodes_other_precision": 1}
        and placement.wrong is None
    )
    assert trt_engine.placement("int8", text, 7).wrong.code == "unsupported_precision"
    assert (
        "1 x gemm fp16 -> fp16" in placement.evidence
        and "1 x CaskConvolution fp32 -> fp32" in placement.evidence
    )


def test_it_is_no_back_end_of_the_cpu_and_says_what_is() -> None:
    assert (
        tensorrt.available("cpu").code == "unsupported_target"
        and "--target sm_89" in tensorrt.available("cpu").detail
    )
    assert tensorrt.supports(Case.parse("w/tensorrt/fp32/b1/gfx942/inference")).code == "unsupported_target"
    assert (
        tensorrt.supports(Case.parse("w/tensorrt/int8/b1/sm_89/inference[route:torch]")).code
        == "unsupported_precision"
    )


def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_engine, "MODULES", ("no_such_tensorrt",))
    assert (
        tensorrt.available("sm_89").code == "dep_missing"
        and "hotlap[tensorrt-rtx]" in tensorrt.available("sm_89").detail
    )


def test_a_bf16_graph_raised_to_fp32_is_the_same_function(tmp_path: Path, workload) -> None:
    model_of_case = workload(Case.parse("conv/tensorrt/bf16/b4/sm_89/inference"))
    inputs = tuple(value.numpy() for value in model_of_case.inputs)
    eager = model_of_case.module(*model_of_case.inputs).numpy()
    exported = export.export(model_of_case, Case.parse("conv/tensorrt/bf16/b4/sm_89/inference"), tmp_path)
    assert export.opset(exported.folder / "model.onnx") == exporters.OPSET_BF16
    (output,) = export.on_cpu(exported.folder / "model.onnx")(inputs)
    assert 0 < np.abs(output - eager).max() < 0.02, (
        "weights are rounded to bf16, so it is near and not the same"
    )


@needs_trt
def test_route_torch_ends_where_there_is_no_driver(climb) -> None:
    steps, refused = climb("conv/tensorrt/fp16/b2/sm_89/inference[route:torch]")
    assert rungs(steps) == ["L0", "L1"] and refused.reason.code in ("no_device", "dep_missing")


ROUTE_TORCH_PRECISIONS = ["fp32", "fp16", "bf16"]


@pytest.fixture(scope="module")
def route_torch() -> dict[str, dict[str, Any]]:
    """What one child process says of every precision: importing torch_tensorrt takes longest."""
    done = subprocess.run(
        [sys.executable, str(HERE / "torch_trt_child.py"), *ROUTE_TORCH_PRECISIONS],
        capture_output=True,
        text=True,
        timeout=280,
        env=dict(os.environ),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers


@needs_trt
@pytest.mark.parametrize("precision", ROUTE_TORCH_PRECISIONS)
def test_route_torch_with_torch_cuda_answered_for(
    route_torch: dict[str, dict[str, Any]], precision: str
) -> None:
    """Coverage of the dry run (L2), its lowered module on the CPU against eager (L3), operators
    that stay with PyTorch by name.
    """
    report = route_torch[precision]
    assert (
        report["conv"]["rungs"] == ["L0", "L1", "L2", "L3"]
        and report["conv"]["outside"] == 0
        and report["conv"]["engines"] == 1
    )
    assert report["conv"]["largest"] <= report["conv"]["allowed"]
    assert {"disable_tf32", "min_block_size", "dryrun"} <= set(report["settings"])
    if precision == "fp32":
        assert report["airy"]["outside"] == 1 and "aten.special_airy_ai" in report["airy"]["evidence"]


def test_route_torch_refuses_what_only_route_onnx_knows() -> None:
    for option in (("shapes", "dynamic"), ("cudagraph", "off"), ("cache", "off")):
        reason = tensorrt.supports(
            Case("conv", "tensorrt", target="sm_89", options=tuple(sorted((option, ("route", "torch")))))
        )
        assert reason is not None and reason.code == "unsupported_op" and ":".join(option) in reason.detail


@needs_trt
def test_what_load_asks_of_the_library_on_a_gpu_is_there() -> None:
    trt = trt_engine.library()
    expected = {
        trt.Runtime: ["deserialize_cuda_engine"],
        trt.ICudaEngine: [
            "create_execution_context",
            "create_runtime_config",
            "create_engine_inspector",
            "num_io_tensors",
            "get_tensor_name",
            "get_tensor_mode",
            "get_tensor_dtype",
        ],
        trt.IRuntimeConfig: ["dynamic_shapes_kernel_specialization_strategy"],
        trt.IExecutionContext: [
            "set_tensor_address",
            "set_input_shape",
            "get_tensor_shape",
            "execute_async_v3",
            "is_stream_capturable",
        ],
        trt.EngineInspector: ["get_engine_information"],
        trt.DynamicShapesKernelSpecializationStrategy: ["EAGER"],
        trt.LayerInformationFormat: ["ONELINE"],
    }
    assert [
        (owner.__name__, name)
        for owner, names in expected.items()
        for name in names
        if not hasattr(owner, name)
    ] == []


def test_shapes_are_compiled_before_they_are_timed() -> None:
    """tensorrt_rtx would start with fallback kernels, which a CUDA graph would keep.

    TensorRT has no such choice.
    """
    config = SimpleNamespace()
    engine = SimpleNamespace(
        create_runtime_config=lambda: config, create_execution_context=lambda *arguments: arguments
    )
    assert tensorrt._context(
        SimpleNamespace(DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="eager")), engine
    ) == (config,)
    assert config.dynamic_shapes_kernel_specialization_strategy == "eager"
    assert tensorrt._context(SimpleNamespace(), engine) == ()


@pytest.mark.parametrize(("precision", "kept"), [("fp32", True), ("tf32", False), ("fp16", True)])
def test_route_torch_keeps_fp32_from_becoming_tf32(precision: str, kept: bool) -> None:
    """Its default would let it. That the library has the setting is seen above."""
    passed: dict[str, object] = {}
    library = SimpleNamespace(
        dynamo=SimpleNamespace(compile=lambda program, **settings: passed.update(settings)), __version__="0"
    )
    torch_trt.compiled(library, None, (), Case("conv", "tensorrt", precision))
    assert passed["disable_tf32"] is kept


def test_a_dry_run_of_another_form_is_no_coverage() -> None:
    with pytest.raises(Refusal, match="its report has changed"):
        torch_trt.parse("The graph has 4 operators")
