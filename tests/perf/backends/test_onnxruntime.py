import json
import os
import subprocess
import sys

import pytest

from hotlap.perf.backends import _machine
from hotlap.perf.backends import onnxruntime as backend
from hotlap.perf.case import Case
from hotlap.perf.reasons import Refusal

CHILD = """
import pathlib, sys
import numpy as np
from hotlap.perf.backends import Artefact, onnxruntime as backend
from hotlap.perf.case import Case
case = Case.parse(sys.argv[1])
artefact = Artefact(case, pathlib.Path(sys.argv[2]), 2, None, pathlib.Path())
step = backend.load(artefact)
step.fetch(step.call(step.place((np.zeros((2, 6), "int64"),))))
assert backend.placement(artefact, step).wrong is None
assert "torch" not in sys.modules
print("no torch")
"""


@pytest.mark.parametrize("workload", ["conv", "mlp", "attention"])
def test_outputs_are_those_of_the_module(run, check, workload):
    ran = run(f"{workload}/onnxruntime/fp32/b3/cpu/inference")
    check(ran)
    placement = ran.placement()
    assert ran.phases == ["export"]
    assert placement.ran_on == {"CPUExecutionProvider": placement.counters["nodes"]} and placement.wrong is None
    assert placement.counters["nodes_elsewhere"] == placement.counters["memcpy_nodes"] == placement.counters["casts_inserted"] == 0


def test_optimization_changes_the_graph_and_not_the_outputs(run, check):
    full, none = (run(f"attention/onnxruntime/fp32/b2/cpu/inference{option}") for option in ("", "[optimization:disabled]"))
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


@pytest.mark.skipif(_machine.no_device("cuda:0") is None, reason="there is a CUDA device, so the provider can be had")
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
        (Case("conv", "onnxruntime", target="cuda:0", options=(("provider", "CPUExecutionProvider"),)), "unsupported_target"),
    ],
)
def test_what_it_does_not_do_has_a_reason(case, code):
    assert backend.supports(case).code == code


def test_a_worker_never_imports_torch(run):
    artefact = run("attention/onnxruntime/fp32/b2/cpu/inference").artefact
    command = [sys.executable, "-P", "-c", CHILD, artefact.case.id, str(artefact.folder)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "no torch"


def test_every_thread_of_the_session_is_bound_to_a_cpu_of_its_own(run):
    """The calling thread and the pool's one thread; the test process has others, which keep their mask."""
    wanted = _machine.places(Case("mlp", "onnxruntime"), 2)
    if not wanted:
        pytest.skip("one CPU")
    before = set(os.listdir("/proc/self/task"))
    ran = run("mlp/onnxruntime/fp32/b2/cpu/inference")
    pool = [int(task) for task in os.listdir("/proc/self/task") if task not in before]
    masks = [os.sched_getaffinity(0), *(os.sched_getaffinity(task) for task in pool)]
    assert ran.step.about is not None and all(len(mask) == 1 for mask in masks) and set.union(*masks) == set(wanted)


def test_the_file_says_nothing_of_the_machine_it_was_made_on(run):
    """The exporter's stack traces would: the path of torch among them."""
    content = (run("attention/onnxruntime/fp32/b2/cpu/inference").artefact.folder / "model.onnx").read_bytes()
    assert b".py" not in content and b"site-packages" not in content
