"""Cold builds with the real compiler take seconds each, so one test looks at several things of the same build."""

import subprocess
import sys

import pytest
import torch

from hotlap.perf.backends import _regional
from hotlap.perf.backends import compile as backend
from hotlap.perf.reasons import Refusal

CHILD = """
import importlib.util, sys, pathlib
spec = importlib.util.spec_from_file_location("planted", sys.argv[1])
planted = importlib.util.module_from_spec(spec)
sys.modules["planted"] = planted
spec.loader.exec_module(planted)
from hotlap.perf.backends import Artefact, compile as backend
from hotlap.perf.case import Case
case = Case.parse(sys.argv[2])
artefact = Artefact(case, pathlib.Path(sys.argv[3]), 2, lambda: planted.make(case), pathlib.Path())
step = backend.load(artefact)
step.call(step.place(step.about.inputs))
placement = backend.placement(artefact, step)
print(placement.counters, placement.evidence)
"""


def test_a_later_process_finds_the_compiled_graph_in_the_folder(run, check):
    """The later process imports the module under another name, before torch, as a user's worker may: the keys must not notice."""
    ran = run("conv/compile/fp32/b2/cpu/inference")
    check(ran)
    placement = ran.placement()
    assert ran.phases == ["compile"]
    assert placement.wrong is None and placement.counters["graphs"] == 1
    assert placement.counters["graph_breaks"] == placement.counters["recompiles"] == 0
    here = __file__.replace("test_compile", "conftest")
    command = [sys.executable, "-P", "-W", "ignore", "-c", CHILD, here, ran.artefact.case.id, str(ran.artefact.folder)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "1 hits, 0 misses" in printed
    assert str(placement.counters) in printed


def test_a_graph_break_is_counted_and_explained(run, check):
    ran = run("broken/compile/fp32/b2/cpu/inference")
    check(ran)
    placement = ran.placement()
    assert placement.counters["graph_breaks"] == 1 and placement.counters["graphs"] == 2
    assert any("planted" in line for line in placement.evidence)


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
    assert placement.counters["graphs"] == 1 and placement.counters["recompiles"] == 0 and placement.wrong is None
    assert len(ran.step.about.compilations) == 1


def test_regional_needs_repeated_blocks(run):
    with pytest.raises(Refusal, match="unsupported_op: regional"):
        run("conv/compile/fp32/b2/cpu/inference[regional:on]")


def test_nothing_compiled_is_said(run):
    placement = run("uncompiled/compile/fp32/b2/cpu/inference").placement()
    assert placement.wrong is not None and placement.wrong.code == "unsupported_op"


def test_freezing_and_channels_last_keep_the_outputs(run, check):
    ran = run("conv/compile/fp32/b2/cpu/inference[freezing:on][layout:channels-last]")
    check(ran)
    assert "1 graphs it cannot store" in " ".join(ran.placement().evidence)


def test_a_failing_compiler_is_the_reason(run):
    with torch._inductor.config.patch({"cpp.cxx": ("false",)}), pytest.raises(Refusal, match="build_failed: InvalidCxxCompiler: No working C"):
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
    assert _regional.repeated(stages) == [*stages[0].blocks, *stages[1].blocks]
    twins = torch.nn.Sequential(Stage(4, 2), Stage(4, 2))
    assert _regional.repeated(twins) == list(twins)
    single = torch.nn.Sequential(Stage(4, 1), Stage(8, 1))
    assert _regional.repeated(single) == list(single)
    assert _regional.repeated(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))) == []
