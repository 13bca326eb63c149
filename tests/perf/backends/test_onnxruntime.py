import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch
from onnx_ir import passes

from hotlap.perf.backends import onnxruntime as backend
from hotlap.perf.lowering import export
from hotlap.perf.machine import present
from hotlap.perf.terms.case import Case
from hotlap.perf.terms.contract import Artefact
from hotlap.perf.terms.reasons import Refusal

# Over 20 s on two quiet cores.
pytestmark = pytest.mark.slow

CHILD = """
import pathlib, sys
import numpy as np
from hotlap.perf.backends import onnxruntime as backend
from hotlap.perf.terms.contract import Artefact
from hotlap.perf.terms.case import Case
case = Case.parse(sys.argv[1])
artefact = Artefact(case, pathlib.Path(sys.argv[2]), 2, None, pathlib.Path())
step = backend.load(artefact)
step.fetch(step.call(step.place((np.zeros((2, 6), "int64"),))))
assert backend.placement(artefact, step).wrong is None
assert "torch" not in sys.modules
print("no torch")
"""


@pytest.mark.numeric
@pytest.mark.parametrize("workload", ["conv", "mlp", "attention"])
def test_outputs_are_those_of_the_module(run, check, workload):
    ran = run(f"{workload}/onnxruntime/fp32/b3/cpu/inference")
    check(ran)
    placement = ran.placement()
    assert ran.phases == ["export"]
    assert (
        placement.ran_on == {"CPUExecutionProvider": placement.counters["nodes"]} and placement.wrong is None
    )
    assert (
        placement.counters["nodes_elsewhere"]
        == placement.counters["memcpy_nodes"]
        == placement.counters["casts_inserted"]
        == 0
    )


def test_optimization_changes_the_graph_and_not_the_outputs(run, check):
    full, none = (
        run(f"attention/onnxruntime/fp32/b2/cpu/inference{option}")
        for option in ("", "[optimization:disabled]")
    )
    check(none)
    assert full.placement().counters["nodes"] < none.placement().counters["nodes"]


def test_it_is_exported_once_for_all_cases_and_the_time_is_kept(run):
    first, second = (run(f"mlp/onnxruntime/fp32/b{batch}/cpu/inference") for batch in (1, 4))
    files = [ran.artefact.folder / "model.onnx" for ran in (first, second)]
    assert os.path.samefile(*files)
    ledgers = [json.loads((ran.artefact.folder / "ledger.json").read_bytes()) for ran in (first, second)]
    assert ledgers[0] == ledgers[1] and ledgers[0]["export"] > 0
    assert not list(first.artefact.folder.parent.glob(".onnx*"))


def test_an_operator_that_cannot_be_exported_is_named(run):
    with pytest.raises(Refusal, match=r"export_failed: operator aten\.special_airy_ai"):
        run("airy/onnxruntime/fp32/b2/cpu/inference")


def test_a_pass_of_the_exporter_that_fails_is_the_reason(workload, tmp_path, monkeypatch):
    """onnxscript 0.5 to 0.6.0 with onnx_ir 1.1 (seen with torch 2.9.1)."""

    def export(*_, **__):
        raise passes.PassError("planted pass") from ValueError("The model contains functions.")

    monkeypatch.setattr(torch.onnx, "export", export)
    case = Case.parse("conv/onnxruntime/fp32/b2/cpu/inference")
    with pytest.raises(Refusal, match="export_failed: The model contains functions"):
        backend.build(workload(case), case, tmp_path, lambda name: contextlib.nullcontext())


@pytest.mark.skipif(
    present.no_device("cuda:0") is None, reason="there is a CUDA device, so the provider can be had"
)
def test_cuda_without_a_device_is_not_passed_off_as_cuda(run, check):
    assert backend.available("cuda:0").code == "no_device"
    ran = run("conv/onnxruntime/fp32/b2/cuda:0/inference")
    check(ran)
    wrong = ran.placement().wrong
    assert wrong is not None and wrong.code == "wrong_provider" and "CUDAExecutionProvider" in wrong.detail


def test_fp16_on_the_cpu_runs_between_casts_and_is_refused(run):
    assert backend.supports(Case("mlp", "onnxruntime", "fp16")).code == "unsupported_precision"
    assert run("conv/onnxruntime/fp16/b2/cpu/inference").placement().counters["casts_inserted"] > 0


def test_bf16_on_the_cpu_has_no_kernels_and_is_refused(run):
    assert backend.supports(Case("conv", "onnxruntime", "bf16")).code == "unsupported_precision"
    with pytest.raises(Refusal, match=r"build_failed: ONNX Runtime .* Could not find an implementation"):
        run("mlp/onnxruntime/bf16/b2/cpu/inference")


@pytest.mark.parametrize(
    ("case", "code"),
    [
        (Case("conv", "onnxruntime", "tf32"), "unsupported_precision"),
        (Case("conv", "onnxruntime", "int8", target="cuda:0"), "unsupported_precision"),
        (Case("conv", "onnxruntime", mode="train"), "unsupported_op"),
        (Case("conv", "onnxruntime", options=(("provider", "CUDAExecutionProvider"),)), "unsupported_target"),
        (
            Case("conv", "onnxruntime", target="cuda:0", options=(("provider", "CPUExecutionProvider"),)),
            "unsupported_target",
        ),
    ],
)
def test_what_it_does_not_do_has_a_reason(case, code):
    assert backend.supports(case).code == code


def profiled(*nodes):
    """What ONNX Runtime's profile says of nodes: (operator, provider)."""
    return {
        str(index): {"op_name": name, "provider": provider, "input_type_shape": [{"float": [1, 4]}]}
        for index, (name, provider) in enumerate(nodes)
    }


ENGINE = ("TRTKernel_graph_main_0", backend.TENSORRT)


def tensorrt(precision="fp32", target="cuda:0", **options):
    return Case(
        "conv",
        "onnxruntime",
        precision,
        target=target,
        options=tuple(sorted({"provider": backend.TENSORRT, **options}.items())),
    )


def test_an_engine_of_tensorrt_stands_for_many_nodes_and_not_for_those_that_ran_elsewhere():
    """Of 10 nodes in the file 2 ran elsewhere, then 5."""
    placement = backend.placed(
        tensorrt("fp16"), profiled(ENGINE, ("Det", backend.CPU), ("Exp", backend.CUDA)), 10
    )
    assert (
        placement.wrong is None
        and placement.counters["engines"] == 1
        and placement.evidence == ("1 engines stand for 8 of the file's 10 nodes",)
    )
    assert (
        placement.partial
        == f"2 of 3 nodes did not run on {backend.TENSORRT}: 1 Det on {backend.CPU}, 1 Exp on {backend.CUDA}"
    )
    for wrong in (
        backend.placed(tensorrt("fp16"), profiled(ENGINE, *[("Exp", backend.CUDA)] * 5), 10).wrong,
        backend.placed(tensorrt("fp16"), profiled(("Conv", backend.CUDA)), 10).wrong,
    ):
        assert wrong is not None and wrong.code == "wrong_provider" and f"on {backend.CUDA}" in wrong.detail


def test_int8_in_an_engine_is_not_claimed_to_be_seen():
    placement = backend.placed(tensorrt("int8"), profiled(ENGINE), 10)
    assert (
        placement.wrong is None
        and "int8_nodes" not in placement.counters
        and "no profile of ONNX Runtime says" in placement.evidence[-1]
    )
    other = backend.placed(Case("conv", "onnxruntime", "int8"), profiled(("Conv", backend.CPU))).wrong
    assert other is not None and other.code == "unsupported_precision"


@pytest.mark.parametrize(
    ("precision", "flags", "tf32"),
    [
        ("fp32", set(), "0"),
        ("tf32", set(), None),
        ("fp16", {"trt_fp16_enable"}, "0"),
        ("int8", {"trt_int8_enable"}, "0"),
    ],
)
def test_tensorrt_is_told_of_the_precision_and_keeps_its_engines(tmp_path, precision, flags, tf32):
    case = tensorrt(precision, "cuda:1")
    assert (
        backend.supports(case) is None
        and backend.supports(tensorrt("fp16", fp16="blocked")).code == "unsupported_op"
    )
    (name, options), (after, _), last = backend.providers(case, tmp_path)
    assert [name, after, last] == [backend.TENSORRT, backend.CUDA, backend.CPU]
    assert (
        options["device_id"] == "1"
        and options["trt_engine_cache_path"] == str(tmp_path / "engines")
        and {name for name in options if name.startswith("trt_") and "cache" not in name} == flags
    )
    assert backend.variables(case, 1).get("NVIDIA_TF32_OVERRIDE") == tf32


@pytest.mark.skipif(
    backend.TENSORRT not in onnxruntime.get_available_providers(),
    reason="this onnxruntime has no TensorRT provider: pip install onnxruntime-gpu",
)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_switches_of_tensorrt_have_the_names_and_values_that_the_library_reads(precision):
    """It would read them after loading the provider, which needs TensorRT 10; what it says of other
    values stands in the library.
    """
    words = Path(onnxruntime.capi.onnxruntime_pybind11_state.__file__).read_bytes()
    switches = {
        name: value
        for name, value in backend.providers(tensorrt(precision), Path())[0][1].items()
        if not name.endswith(("_id", "_path"))
    }
    assert switches and set(switches.values()) == {"True"}
    for name in (*switches, "trt_engine_cache_path"):
        assert (
            f"'{name}' should be {'a path' if name.endswith('_path') else repr('True')}".encode() in words
        ), name


def test_what_builds_an_engine_is_kept_from_tf32_too(run, monkeypatch):
    """The process that builds has the environment of eager."""
    seen = []
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    monkeypatch.setattr(backend, "_load_tensorrt", lambda: None)
    monkeypatch.setattr(export, "agrees", lambda *arguments: None)
    monkeypatch.setattr(export, "on_cpu", lambda *arguments: None)
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda *arguments, **named: seen.append((os.environ["NVIDIA_TF32_OVERRIDE"], named)),
    )
    with pytest.raises(AttributeError):  # the session that was asked for is none
        run(tensorrt().id)
    assert seen[0] == ("0", {"enable_fallback": 0})


def test_engines_that_other_libraries_make_are_not_left_in_the_folder(tmp_path):
    artefact = Artefact(tensorrt(), tmp_path, 1, None, tmp_path)
    (tmp_path / "engines").mkdir()
    for name in ("built", "other"):
        with backend._as_built(artefact):
            (tmp_path / "engines" / name).touch()
    assert [path.name for path in (tmp_path / "engines").iterdir()] == ["built"]


def test_without_tensorrt_10_its_provider_is_missing_and_no_other_runs_instead(run, monkeypatch):
    monkeypatch.setattr(backend, "TENSORRT_LIBRARIES", ("libnvinfer.so.0",))
    with pytest.raises(
        Refusal, match=r"dep_missing: .*libnvinfer\.so\.0 \(.*cannot open shared object.*\): pip install"
    ):
        run(tensorrt().id)


def test_a_worker_never_imports_torch(run):
    artefact = run("attention/onnxruntime/fp32/b2/cpu/inference").artefact
    command = [sys.executable, "-P", "-c", CHILD, artefact.case.id, str(artefact.folder)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "no torch"


def test_every_thread_of_the_session_is_bound_to_a_cpu_of_its_own(run):
    """The calling thread and the pool's one thread; the test process has others, which keep their
    mask, and building starts some.
    """
    wanted = present.cpus_to_bind(Case("mlp", "onnxruntime"), 2)
    if not wanted:
        pytest.skip("one CPU")
    whole = os.sched_getaffinity(0)
    artefact = run("mlp/onnxruntime/fp32/b2/cpu/inference").artefact
    os.sched_setaffinity(0, whole)
    before = set(os.listdir("/proc/self/task"))
    step = backend.load(artefact)
    pool = [int(task) for task in os.listdir("/proc/self/task") if task not in before]
    masks = [os.sched_getaffinity(0), *(os.sched_getaffinity(task) for task in pool)]
    assert step.about is not None and len(pool) == 1
    assert all(len(mask) == 1 for mask in masks) and set.union(*masks) == set(wanted)


def test_the_file_says_nothing_of_the_machine_it_was_made_on(run):
    """The exporter's stack traces would: the path of torch among them."""
    content = (run("attention/onnxruntime/fp32/b2/cpu/inference").artefact.folder / "model.onnx").read_bytes()
    assert b".py" not in content and b"site-packages" not in content
