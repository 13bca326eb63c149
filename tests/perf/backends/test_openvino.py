import subprocess
import sys
from dataclasses import replace

import pytest

from hotlap.perf.backends import _machine
from hotlap.perf.backends import openvino as backend
from hotlap.perf.case import Case

if backend.available("cpu") is not None:
    pytest.skip("openvino is not installed", allow_module_level=True)

has_bf16 = bool(_machine.cpu_flags() & set(backend.NEEDS["bf16"]))

CHILD = """
import pathlib, sys
import numpy as np
from hotlap.perf.backends import Artefact, openvino as backend
from hotlap.perf.case import Case
case = Case.parse(sys.argv[1])
artefact = Artefact(case, pathlib.Path(sys.argv[2]), 2, None, pathlib.Path())
step = backend.load(artefact)
step.fetch(step.call(step.place((np.zeros((2, 6), "int64"),))))
assert backend.placement(artefact, step).wrong is None
assert "torch" not in sys.modules
assert not [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module]
print(step.about.model.get_property("INFERENCE_NUM_THREADS"))
"""


@pytest.mark.parametrize("workload", ["conv", "mlp", "attention"])
def test_outputs_are_those_of_the_module_and_fp32_is_fp32(run, check, workload):
    ran = run(f"{workload}/openvino/fp32/b3/cpu/inference")
    check(ran)
    placement = ran.placement()
    assert ran.phases == ["export", "build"]
    assert placement.wrong is None and placement.counters["nodes_other_precision"] == 0
    assert placement.ran_on["f32"] > 0 and "bf16" not in placement.ran_on


@pytest.mark.skipif(not has_bf16, reason="this CPU has no bf16 instructions")
def test_bf16_where_fp32_was_asked_is_seen(run, check):
    ran = run("conv/openvino/bf16/b2/cpu/inference")
    check(ran)
    assert ran.placement().wrong is None and ran.placement().ran_on["bf16"] > 0
    asked = replace(ran.artefact, case=Case("conv", "openvino", batch=2))
    wrong = backend.placement(asked, ran.step).wrong
    assert wrong is not None and wrong.code == "unsupported_precision" and "requested f32" in wrong.detail


def test_outputs_survive_the_next_call(run, check):
    ran = run("mlp/openvino/fp32/b2/cpu/inference[hint:throughput]")
    inputs = ran.step.place(tuple(0 * array for array in _inputs(ran)))
    ran.step.call(inputs)
    check(ran)


@pytest.mark.parametrize(
    ("case", "code"),
    [
        (Case("conv", "openvino", "tf32"), "unsupported_precision"),
        (Case("conv", "openvino", "int8"), "unsupported_precision"),
        (Case("conv", "openvino", mode="train"), "unsupported_op"),
    ],
)
def test_what_it_does_not_do_has_a_reason(case, code):
    assert backend.supports(case).code == code


def test_precisions_follow_the_cpu(monkeypatch):
    monkeypatch.setattr(_machine, "cpu_flags", lambda: frozenset({"avx2"}))
    assert backend.supports(Case("conv", "openvino", "bf16")).code == "unsupported_precision"
    monkeypatch.setattr(_machine, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    assert backend.supports(Case("conv", "openvino", "bf16")) is None
    assert backend.available("cuda:0").code == "unsupported_target"


def test_a_worker_imports_neither_torch_nor_telemetry(run):
    artefact = run("attention/openvino/fp32/b2/cpu/inference").artefact
    command = [sys.executable, "-P", "-c", CHILD, artefact.case.id, str(artefact.folder)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "2"


def _inputs(ran):
    return [tensor.numpy() for tensor in ran.artefact.workload().inputs]
