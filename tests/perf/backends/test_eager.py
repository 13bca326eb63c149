import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from hotlap.perf.backends import eager
from hotlap.perf.machine import present
from hotlap.perf.terms.case import Case, Workload
from hotlap.perf.terms.contract import Artefact
from hotlap.perf.terms.reasons import Refusal


@pytest.mark.numeric
@pytest.mark.parametrize("workload", ["conv", "mlp", "attention"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_outputs_are_those_of_the_module(run, check, workload, precision):
    check(run(f"{workload}/eager/{precision}/b2/cpu/inference"))


@pytest.mark.numeric
def test_channels_last_reaches_parameters_and_inputs(run, check):
    ran = run("conv/eager/fp32/b2/cpu/inference[layout:channels-last]")
    check(ran)
    assert ran.step.about.module.body[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert ran.step.place(ran.step.about.inputs)[0].is_contiguous(memory_format=torch.channels_last)


def test_channels_last_without_an_image_is_refused(run):
    with pytest.raises(Refusal, match="unsupported_op: layout channels-last"):
        run("mlp/eager/fp32/b2/cpu/inference[layout:channels-last]")


def test_placement_counts_the_operators_of_one_call(run):
    """tanh, ones, mm: what Mlp.forward calls."""
    placement = run("mlp/eager/fp32/b2/cpu/inference").placement()
    assert (
        placement.ran_on == {"cpu": 3} and placement.counters == {"operators": 3} and placement.wrong is None
    )


@pytest.mark.parametrize(
    ("precision", "mode", "code"),
    [
        ("tf32", "inference", "unsupported_precision"),
        ("int8", "inference", "unsupported_precision"),
        ("fp32", "train", "unsupported_op"),
    ],
)
def test_what_it_does_not_do_has_a_reason(precision, mode, code):
    reason = eager.supports(Case("conv", "eager", precision, mode=mode))
    assert reason is not None and reason.code == code


def test_devices_that_are_not_here_have_a_reason():
    assert eager.available("cpu") is None
    assert eager.available("sm_89").code == "no_device"
    assert eager.available("cuda:99").code == "no_device"


CUDA = """
import json, os, sys
from unittest import mock
import torch
import torch._dynamo, torch.export._trace  # what torch.export.export imports
from hotlap.perf.lowering import torch_step
from hotlap.perf.terms.case import Case

def told(precision):
    cuda = {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "get_device_capability": lambda device: (8, 9),
        "set_device": mock.Mock(),
    }
    with mock.patch.multiple(torch.cuda, **cuda):
        torch_step.tensors(Case("w", "eager", precision, target="cuda:1"))
    torch.export.export(torch.nn.Linear(2, 2), (torch.randn(1, 2),))
    backends = torch.backends
    allowed = [
        backends.cuda.matmul.fp32_precision == "tf32",
        backends.cudnn.conv.fp32_precision == "tf32",
        backends.cudnn.rnn.fp32_precision == "tf32",
        backends.cudnn.allow_tf32,
    ]
    return [allowed, torch.get_float32_matmul_precision(), cuda["set_device"].call_args.args[0]]

for precision in ("fp32", "tf32", "bf16"):
    child = os.fork()
    if child == 0:
        print(json.dumps([precision, told(precision)]))
        sys.exit()
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{precision} failed")
"""


@pytest.fixture(scope="module")
def told_on_cuda():
    """What torch was told for each precision, by a process for each, forked from one that has
    imported torch.
    """
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", CUDA],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-1500:]
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("precision", "tf32", "matmul"),
    [("fp32", False, "highest"), ("tf32", True, "high"), ("bf16", False, "highest")],
)
def test_fp32_on_cuda_is_told_what_it_is_and_torch_can_still_export(told_on_cuda, precision, tf32, matmul):
    """torch.cuda answered for, in a process of its own.

    Where only torch's newer flags are set, torch.export raises; and events need their device to be
    the current one.
    """
    assert told_on_cuda[precision] == [[tf32] * 4, matmul, 1]


def test_threads_are_bound_by_openmp_unless_told_not_to(monkeypatch):
    monkeypatch.setattr(present.os, "sched_getaffinity", lambda pid: {4, 5, 6, 7})
    monkeypatch.setattr(present, "_sibling", lambda cpu: cpu % 2)
    case, free = Case("conv", "eager"), Case("conv", "eager", options=(("binding", "none"),))
    assert eager.variables(case, 3) == {
        "OMP_NUM_THREADS": "3",
        "OMP_PROC_BIND": "close",
        "OMP_PLACES": "{4},{6},{5}",
    }
    assert eager.variables(free, 3) == {"OMP_NUM_THREADS": "3"}
    assert eager.variables(case, 5) == {"OMP_NUM_THREADS": "5"}


def test_sibling_is_the_rank_within_the_core(monkeypatch, tmp_path):
    for text, cpu, rank in [("0-1", 1, 1), ("0,4", 4, 1), ("0,4", 0, 0), ("2", 2, 0), ("0-1,8-9", 8, 2)]:
        monkeypatch.setattr(present.Path, "read_text", lambda self, text=text: text + "\n")
        monkeypatch.setattr(present.Path, "is_file", lambda self: True)
        assert present._sibling(cpu) == rank


def test_autocast_casts_at_the_operators_and_leaves_the_module_in_fp32(run):
    ran = run("conv/eager/bf16/b2/cpu/inference[autocast:on]")
    evidence = " ".join(ran.placement().evidence)
    assert "under torch.autocast, module and inputs in fp32" in evidence and " bf16" in evidence
    cast = run("conv/eager/bf16/b2/cpu/inference").placement()
    assert "whole model cast" in " ".join(cast.evidence) and cast.wrong is None


def test_operators_that_left_the_target_are_named(tmp_path):
    """On torch's meta device, which every machine has; an operator that returns no tensor is no
    sign of another device.
    """

    class Strays(nn.Module):
        def forward(self, x):
            torch.ones(3, device="meta") * 2
            torch._assert_async(x.sum() * 0 + 1)
            return x + 1

    workload = Workload("strays", Strays(), (torch.zeros(2, 4),))
    artefact = Artefact(Case("strays", "eager", batch=2), tmp_path, 1, lambda: workload, tmp_path)
    placement = eager.placement(artefact, eager.load(artefact))
    assert (
        placement.wrong is None
        and placement.partial
        == "2 operators did not run on cpu: 1 aten.ones.default on meta, 1 aten.mul.Tensor on meta"
    )
