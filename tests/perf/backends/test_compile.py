"""Cold builds with the real compiler take seconds each, so one test looks at several things of the
same build.
"""

import contextlib
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hotlap.perf.backends import compile as backend
from hotlap.perf.lowering import generated, regional
from hotlap.perf.terms.case import Case
from hotlap.perf.terms.reasons import Refusal

# Over 20 s on two quiet cores.
pytestmark = pytest.mark.slow

CHILD = """
import importlib.util, sys, pathlib
spec = importlib.util.spec_from_file_location("planted", sys.argv[1])
planted = importlib.util.module_from_spec(spec)
sys.modules["planted"] = planted
spec.loader.exec_module(planted)
from hotlap.perf.backends import compile as backend
from hotlap.perf.terms.contract import Artefact
from hotlap.perf.terms.case import Case
case = Case.parse(sys.argv[2])
artefact = Artefact(case, pathlib.Path(sys.argv[3]), 2, lambda: planted.make(case), pathlib.Path())
step = backend.load(artefact)
step.call(step.place(step.about.inputs))
placement = backend.placement(artefact, step)
print(placement.counters, placement.evidence)
"""


def test_a_later_process_finds_the_compiled_graph_in_the_folder(run, check):
    """The later process imports the module under another name, before torch, as a user's worker
    may: the keys must not notice.
    """
    ran = run("conv/compile/fp32/b2/cpu/inference")
    check(ran)
    placement = ran.placement()
    assert ran.phases == ["compile"]
    assert placement.wrong is None and placement.counters["graphs"] == 1
    assert placement.counters["graph_breaks"] == placement.counters["recompiles"] == 0
    here = __file__.replace("test_compile", "conftest")
    command = [
        sys.executable,
        "-P",
        "-W",
        "ignore",
        "-c",
        CHILD,
        here,
        ran.artefact.case.id,
        str(ran.artefact.folder),
    ]
    before = {file: file.stat().st_mtime_ns for file in ran.artefact.folder.rglob("*.so")}
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "1 hits, 0 misses" in printed
    assert str(placement.counters) in printed
    assert before and before == {
        file: file.stat().st_mtime_ns for file in ran.artefact.folder.rglob("*.so")
    }, "the C++ compiler ran"


def test_a_graph_break_is_counted_and_explained(run, check):
    ran = run("broken/compile/fp32/b2/cpu/inference")
    check(ran)
    placement = ran.placement()
    assert placement.counters["graph_breaks"] == 1 and placement.counters["graphs"] == 2
    assert any("planted" in line for line in placement.evidence)
    assert (
        placement.partial.startswith("what lies between 2 graphs ran in eager")
        and "planted" in placement.partial
    )


def test_another_batch_is_a_recompilation(run):
    ran = run("mlp/compile/fp32/b2/cpu/inference[mode:reduce-overhead]")
    assert ran.placement().counters["recompiles"] == 0
    assert any("on cpu it does what mode default does" in line for line in ran.placement().evidence)
    ran.step.call((torch.randn(3, 16),))
    assert ran.placement().counters["recompiles"] == 1


def test_regional_compiles_one_block_for_all(run, check):
    ran = run("attention/compile/fp32/b2/cpu/inference[regional:on]")
    check(ran)
    placement = ran.placement()
    assert (
        placement.counters["graphs"] == 1
        and placement.counters["recompiles"] == 0
        and placement.wrong is None
    )
    assert len(ran.step.about.compilations) == 1


def test_regional_needs_repeated_blocks(run):
    with pytest.raises(Refusal, match="unsupported_op: regional"):
        run("conv/compile/fp32/b2/cpu/inference[regional:on]")


def test_nothing_compiled_is_said(run):
    placement = run("uncompiled/compile/fp32/b2/cpu/inference").placement()
    assert placement.wrong is not None and placement.wrong.code == "unsupported_op"


@pytest.mark.numeric
def test_freezing_and_channels_last_keep_the_outputs(run, check):
    """Nine parameters and buffers: batch norm's are folded into the convolution."""
    ran = run("conv/compile/fp32/b2/cpu/inference[freezing:on][layout:channels-last]")
    check(ran)
    evidence = " ".join(ran.placement().evidence)
    assert "1 graphs it cannot store" in evidence
    constants, packed = map(
        int,
        re.search(
            r"freezing: (\d+) constants, (\d+) of them packed .* stand for 9 parameters", evidence
        ).groups(),
    )
    assert 1 <= packed <= constants < 9


def test_freezing_that_freezes_nothing_fell_back(run):
    wrong = run("specialised/compile/fp32/b2/cpu/inference[freezing:on]").placement().wrong
    assert (
        wrong is not None
        and str(wrong)
        == "unsupported_op: freezing was asked for and nothing was frozen, of 0 parameters and buffers"
    )


def test_max_autotune_says_what_it_chose(run, check):
    ran = run("conv/compile/fp32/b2/cpu/inference[mode:max-autotune]")
    check(ran)
    assert any(
        line.startswith("max-autotune: no product took the C++ GEMM template (it takes constant weights only")
        for line in ran.placement().evidence
    )
    code = generated.read(
        [
            "inline void kernel_micro_gemm(\n buf = torch.ops.mkl._mkl_linear.default(x)\n f(x,"
            " 'torch.ops.aten.convolution.default')"
        ],
        generated.PYTHON,
    )
    assert code.templates == 1 and code.operators == {"_mkl_linear": 1}
    assert "was chosen for 1 products; calls of libraries: 1 _mkl_linear" in generated.chosen(code, True)


def test_a_dynamic_batch_serves_other_sizes(run, check):
    ran = run("attention/compile/fp32/b1/cpu/inference[dynamic:on]")
    check(ran)
    placement = ran.placement()
    assert placement.wrong is None and placement.counters["recompiles"] == 0
    assert "dynamic batch: called with 2 and 4 rows too, 0 recompilations" in placement.evidence


def test_a_model_made_for_one_batch_size_fell_back(run):
    placement = run("specialised/compile/fp32/b2/cpu/inference[dynamic:on]").placement()
    assert placement.counters["recompiles"] == 1
    assert (
        placement.wrong is not None
        and placement.wrong.code == "unsupported_op"
        and "compiled again 1 times for 3 and 5 rows" in placement.wrong.detail
    )


def test_a_fixed_batch_has_no_dynamic_one(tmp_path, workload):
    case = Case.parse("conv/compile/fp32/b2/cpu/inference[dynamic:on]")
    with pytest.raises(Refusal, match="unsupported_op: dynamic:on: conv has a fixed batch of 2"):
        backend.build(replace(workload(case), dynamic=False), case, tmp_path, contextlib.nullcontext)


def test_cuda_graphs_are_counted_with_their_children(monkeypatch):
    """A stand-in for the trees of a device that is not here."""
    leaf = SimpleNamespace(children={})
    root = SimpleNamespace(children={1: [leaf, leaf]})
    monkeypatch.setattr(
        "torch._inductor.cudagraph_trees.get_manager",
        lambda device, create_if_none_exists: SimpleNamespace(roots={0: [root]}),
    )
    assert backend._captured(Case.parse("m/compile/fp32/b1/cuda:0/inference[mode:reduce-overhead]")) == 3


def test_autocast_keeps_the_module_in_fp32(run):
    ran = run("conv/compile/bf16/b2/cpu/inference[autocast:on]")
    (inputs,) = ran.step.place((np.zeros((2, 3, 8, 8), np.float32),))
    assert inputs.dtype == torch.float32
    assert any(
        "under torch.autocast, module and inputs in fp32" in line and " bf16" in line
        for line in ran.placement().evidence
    )


@pytest.mark.parametrize(
    ("case", "code", "word"),
    [
        ("m/compile/int8/b1/cuda:0/inference", "unsupported_precision", "for cpu, not cuda:0"),
        ("m/compile/int8/b1/cpu/inference[autocast:on]", "unsupported_precision", "autocast:on"),
        ("m/compile/int8/b1/cpu/inference[regional:on]", "unsupported_op", "regional"),
        ("m/compile/int8/b1/cpu/inference[mode:max-autotune]", "unsupported_op", "max-autotune"),
        (
            "m/compile/fp32/b1/cpu/inference[autocast:on]",
            "unsupported_precision",
            "with fp32 there is nothing to cast",
        ),
        ("m/compile/fp32/b1/cpu/inference[dynamic:on][regional:on]", "unsupported_op", "drop one of the two"),
        (
            "m/compile/fp32/b1/cpu/inference[package:aoti][regional:on]",
            "unsupported_op",
            "drop one of the two",
        ),
        (
            "m/compile/fp32/b1/cpu/inference[mode:reduce-overhead][package:aoti]",
            "unsupported_op",
            "CUDA graphs",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(case, code, word):
    reason = backend.supports(Case.parse(case))
    assert reason is not None and reason.code == code and word in reason.detail and "\n" not in reason.detail


def test_a_failing_compiler_is_the_reason(run):
    with (
        torch._inductor.config.patch({"cpp.cxx": ("false",)}),
        pytest.raises(Refusal, match="build_failed: InvalidCxxCompiler: No working C"),
    ):
        run("mlp/compile/fp32/b5/cpu/inference")


def test_no_compiler_is_a_missing_dependency(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    reason = backend.available("cpu")
    assert reason is not None and reason.code == "dep_missing" and "apt-get install g++" in reason.detail


def test_repeated_blocks_are_the_outermost_that_share_code():
    def block(width: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU())

    class Stage(torch.nn.Module):
        def __init__(self, width: int, blocks: int):
            super().__init__()
            self.blocks = torch.nn.ModuleList(block(width) for _ in range(blocks))

    stages = torch.nn.Sequential(Stage(4, 2), Stage(8, 3))
    assert regional.repeated(stages) == [*stages[0].blocks, *stages[1].blocks]
    twins = torch.nn.Sequential(Stage(4, 2), Stage(4, 2))
    assert regional.repeated(twins) == list(twins)
    single = torch.nn.Sequential(Stage(4, 1), Stage(8, 1))
    assert regional.repeated(single) == list(single)
    assert regional.repeated(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))) == []
