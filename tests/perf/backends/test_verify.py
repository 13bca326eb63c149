"""Cases for GPUs that are not here: how far each is proven, and what stops it."""

import contextlib
import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hotlap.perf.backends import compile as backend
from hotlap.perf.backends import eager
from hotlap.perf.compiled.census import PARTS, Census
from hotlap.perf.lookup import workloads
from hotlap.perf.lowering import aoti, proofs
from hotlap.perf.terms.case import Case
from hotlap.perf.terms.reasons import Refusal

# Over 20 s on two quiet cores.
pytestmark = pytest.mark.slow

PLANTED = """
import torch
from torch import nn

class Sound(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(16, 16), nn.LayerNorm(16)
    def forward(self, x):
        return self.norm(nn.functional.gelu(self.layer(x)))

class Made(Sound):
    def forward(self, x):
        return super().forward(x) @ torch.ones(16, 4, dtype=x.dtype)

class Moved(Sound):
    def forward(self, x):
        return super().forward(x) * torch.arange(16).to(x.device)

class Kept(Sound):
    def __init__(self):
        super().__init__()
        self.table = torch.ones(16)
    def forward(self, x):
        return super().forward(x) + self.table

class Broken(Sound):
    def forward(self, x):
        x = super().forward(x)
        torch._dynamo.graph_break("planted")
        return x * 2

@torch.library.custom_op("planted::here", mutates_args=(), device_types="cpu")
def here(x: torch.Tensor) -> torch.Tensor:
    return x.cumsum(-1)

@here.register_fake
def _(x):
    return torch.empty_like(x)

class OnlyHere(Sound):
    def forward(self, x):
        return here(super().forward(x))

class InABranch(Sound):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda y: here(y), lambda y: y * 2, (super().forward(x),))

def in_a_branch(): return InABranch(), torch.randn(2, 16)
def only_here(): return OnlyHere(), torch.randn(2, 16)
def sound(): return Sound(), torch.randn(2, 16)
def pooled(): return nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(3, 2, 1)), torch.randn(2, 3, 8, 8)
def made(): return Made(), torch.randn(2, 16)
def moved(): return Moved(), torch.randn(2, 16)
def kept(): return Kept(), torch.randn(2, 16)
def broken(): return Broken(), torch.randn(2, 16)
"""


@pytest.fixture
def climb(tmp_path, monkeypatch):
    """climb(name, case): the rungs, and why it ended.

    The module lies in the user's folder, as the census makes the workload anew.
    """
    (tmp_path / "planted_here.py").write_text(PLANTED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "planted_here", raising=False)

    def go(name, case):
        workload = workloads.load(workloads.Reference(f"planted_here:{name}"))
        requested, rungs = Case.parse(case), []
        module = eager if requested.backend == "eager" else backend
        try:
            rungs.extend(
                module.verify(workload, requested, Path(tmp_path), lambda phase: contextlib.nullcontext())
            )
        except Refusal as refusal:
            return rungs, str(refusal)
        return rungs, ""

    return go


def test_compile_is_proven_to_its_cubins(climb):
    rungs, why = climb("sound", "m/compile/bf16/b2/sm_89/inference")
    assert not why and [proven.rung for proven in rungs] == ["L0", "L1", "L2", "L3", "L4", "L5"]
    assert (
        "every tensor on cuda:0" in rungs[1].evidence
        and "1 graphs, 0 graph breaks; fullgraph holds" in rungs[2].evidence
    )
    array = np.random.default_rng(0).standard_normal((2, 16)).astype(np.float32)
    module, _ = sys.modules["planted_here"].sound()
    assert (
        rungs[3].lowered is not None
        and rungs[3].lowered((array,))[0].shape == module(torch.tensor(array)).shape
    )
    assert "operator by operator the one exported for the device" in rungs[3].evidence
    assert "NVIDIA L4" in rungs[4].evidence and rungs[5].placement.counters["generated_kernels"] > 0


@pytest.mark.parametrize(
    ("case", "last", "word"),
    [
        (
            "m/compile/fp32/b2/cuda:0/inference",
            "L3",
            "it ends here: cuda:0 names no architecture with figures",
        ),
        ("m/compile/fp32/b2/sm_75/inference", "L3", "it ends here: sm_75"),
        (
            "m/compile/fp32/b2/sm_90/inference[mode:max-autotune]",
            "L3",
            "the code for mode:max-autotune is another",
        ),
        ("m/compile/bf16/b2/sm_90/inference[autocast:on]", "L0", "torch.autocast switches itself off"),
        ("m/eager/fp16/b2/sm_90/inference", "L1", "in fp16"),
    ],
)
def test_it_ends_where_it_can_prove_no_more_and_says_so(climb, case, last, word):
    rungs, why = climb("sound", case)
    assert not why and rungs[-1].rung == last and word in rungs[-1].evidence


@pytest.mark.parametrize("name", ["eager", "compile"])
@pytest.mark.parametrize(
    ("planted", "word"), [("made", "aten.ones"), ("moved", "aten.arange"), ("kept", "aten.add.Tensor")]
)
def test_a_tensor_on_the_cpu_is_refused_by_its_operator(climb, name, planted, word):
    rungs, why = climb(planted, f"m/{name}/fp32/b2/sm_90/inference")
    assert [proven.rung for proven in rungs] == ["L0"] and why.startswith("unsupported_op: ") and word in why


@pytest.mark.parametrize("name", ["eager", "compile"])
def test_an_operator_that_only_the_cpu_has_is_refused_by_its_name(climb, name):
    rungs, why = climb("only_here", f"m/{name}/fp32/b2/sm_90/inference")
    assert [proven.rung for proven in rungs] == ["L0"] and why.startswith(
        "unsupported_op: planted::here in planted_here:only_here: no kernel for CUDA is registered here"
    )


def test_an_operator_of_a_branch_is_seen_too(climb):
    climb("sound", "m/eager/fp32/b2/sm_90/inference")
    program = aoti.exported(
        workloads.load(workloads.Reference("planted_here:in_a_branch")).module, (torch.randn(2, 16),), False
    )
    assert proofs.without_kernel(program) == ["planted::here"]


def test_without_rocm_nothing_is_said_of_its_kernels(climb):
    rungs, why = climb("only_here", "m/eager/fp32/b2/gfx942/inference")
    assert not why and rungs[1].evidence.endswith(
        "torch here was built without ROCm, so which operators have kernels for it is not known"
    )


def test_a_process_that_has_imported_nothing_more_climbs_as_far(climb, tmp_path):
    """As a worker does it: what torch's own decompositions need must not come from an import that
    some other test made.
    """
    climb("sound", "m/eager/fp32/b2/sm_90/inference")
    code = """
import contextlib, sys
from pathlib import Path
from hotlap.perf.lookup import workloads
from hotlap.perf.backends import compile as backend
from hotlap.perf.terms.case import Case
case = Case.parse("m/compile/fp32/b2/cuda:0/inference")
workload = workloads.load(workloads.Reference("planted_here:pooled"))
rungs = backend.verify(workload, case, Path(), lambda phase: contextlib.nullcontext())
print(*(entry.rung for entry in rungs))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["L0", "L1", "L2", "L3"], done.stderr[-500:]


def test_graph_breaks_are_told(climb):
    rungs, why = climb("broken", "m/compile/fp32/b2/cuda:0/inference")
    assert (
        rungs[2].placement.counters == {"graphs": 2, "graph_breaks": 1}
        and "no fullgraph" in rungs[2].evidence
        and "planted" in rungs[2].evidence
    )
    assert (why, rungs[-1].rung) == ("", "L3")


def test_a_kernel_that_does_not_compile_ends_at_the_code(climb, monkeypatch):
    monkeypatch.setattr(
        proofs, "_census", lambda *requested: Census("m", "sm_90", {}, [], failed=["triton_0: ptxas"])
    )
    rungs, why = climb("sound", "m/compile/fp32/b2/sm_90/inference")
    assert (
        rungs[-1].rung == "L4" and why == "build_failed: 1 kernels do not compile for sm_90: triton_0: ptxas"
    )


def test_the_census_is_asked_for_the_workload_with_its_checkpoint(climb, monkeypatch):
    climb("sound", "m/eager/fp32/b2/sm_90/inference")
    requested = []

    def run(command, **_):
        requested.append(command)
        return subprocess.CompletedProcess(command, 1, "", "planted end")

    monkeypatch.setattr(proofs.subprocess, "run", run)
    workload = dataclasses.replace(
        workloads.load(workloads.Reference("planted_here:sound")), checkpoint="last.ckpt"
    )
    with pytest.raises(Refusal, match="planted end"):
        proofs._census(workload, Case.parse("m/compile/bf16/b2/sm_90/inference"), Path())
    assert requested[0][-5:] == ["planted_here:sound", "sm_90", "bf16", "2", "last.ckpt"]


def test_a_census_that_fails_ends_at_the_lowered_graph(climb):
    """The child makes the workload anew by its name; if it cannot, its last line is the reason."""
    rungs, why = climb("sound", "m/compile/int8/b2/sm_90/inference")
    assert rungs[-1].rung == "L3" and why.startswith("build_failed: Inductor's lowering for sm_90")


def test_figures_of_a_part_agree_with_its_architecture():
    for target, part in PARTS.items():
        assert target == f"sm_{10 * part.capability[0] + part.capability[1]}" and part.source
        assert part.properties.shared_memory_per_block_optin == part.shared_bytes - 1024
