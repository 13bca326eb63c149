"""AOTInductor's package: it runs without the model and without dynamo, and only if it is the file
that was built.
"""

import contextlib
import re
import subprocess
import sys
import zipfile

import pytest
import torch

from hotlap.perf.backends import compile as backend
from hotlap.perf.lowering import aoti
from hotlap.perf.machine import cpu
from hotlap.perf.terms.case import Case
from hotlap.perf.terms.reasons import Refusal

# Over 20 s on two quiet cores.
pytestmark = pytest.mark.slow

CHILD = """
import pathlib, sys
from hotlap.perf.backends import compile as backend
from hotlap.perf.lowering import aoti
from hotlap.perf.terms.contract import Artefact
from hotlap.perf.terms.case import Case
def workload():
    raise SystemExit("the model was asked for")
case = Case.parse(sys.argv[1])
artefact = Artefact(case, pathlib.Path(sys.argv[2]), 2, workload, pathlib.Path())
step = backend.load(artefact)
step.call(step.place(aoti.inputs(artefact.folder)))
print("dynamo" if "torch._dynamo" in sys.modules else "no dynamo", backend.placement(artefact, step))
"""


def holds_no_pickle(file):
    """Not one byte string of the zip begins as a pickle does, and no file in it is one by name."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        assert not [name for name in names if name.endswith((".pkl", ".pt"))]
        assert not [
            name for name in names if archive.read(name)[:2] in (b"\x80\x02", b"\x80\x04", b"\x80\x05")
        ]


def test_a_package_runs_without_the_model_and_without_dynamo(run, check):
    """One build for all that a package promises, as it costs seconds: outputs, evidence, another
    process, another batch, no pickle in it, and a byte flipped.
    """
    ran = run("conv/compile/fp32/b2/cpu/inference[freezing:on][package:aoti]")
    check(ran)
    assert ran.phases == ["export", "compile"]
    assert sorted(file.name for file in ran.artefact.folder.iterdir()) == [
        aoti.INPUTS,
        aoti.FILE,
        aoti.ABOUT,
    ]
    placement = ran.placement()
    evidence = " ".join(placement.evidence)
    assert (
        placement.wrong is None
        and placement.counters["generated_kernels"] > 0
        and placement.counters["recompiles"] == 0
    )
    assert "mkldnn__convolution_pointwise" in evidence and "conv was not imported" in evidence
    assert re.search(r"freezing: \d+ constants, [1-9]\d* of them packed .* stand for 9 parameters", evidence)
    command = [
        sys.executable,
        "-P",
        "-W",
        "ignore",
        "-c",
        CHILD,
        ran.artefact.case.id,
        str(ran.artefact.folder),
    ]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("no dynamo") and repr(placement) in printed
    with pytest.raises(Refusal, match="invalid_input: the package was made for a batch of 2, not 3"):
        ran.step.place((torch.randn(3, 3, 8, 8).numpy(),))
    file = ran.artefact.folder / aoti.FILE
    holds_no_pickle(file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(Refusal, match=r"^build_failed: .*model.pt2 is not the file that was built"):
        backend.load(ran.artefact)


def test_a_dynamic_package_serves_other_sizes(run, check):
    ran = run("attention/compile/fp32/b1/cpu/inference[dynamic:on][package:aoti]")
    check(ran)
    placement = ran.placement()
    assert (
        placement.wrong is None
        and "dynamic batch: called with 2 and 4 rows too, 0 recompilations" in placement.evidence
    )


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (
            "specialised/compile/fp32/b2/cpu/inference[dynamic:on][package:aoti]",
            "unsupported_op: dynamic:on: the model is made for one batch size: You marked",
        ),
        ("branching/compile/fp32/b2/cpu/inference[package:aoti]", "export_failed: "),
    ],
)
def test_what_cannot_be_exported_has_a_reason(run, case, why):
    with pytest.raises(Refusal, match=why):
        run(case)


@pytest.mark.parametrize(
    ("source", "tiles"), [("_tile_dpbusd(0, 1, 2);", True), ("int _tile_count(3);", False)]
)
def test_instructions_of_amx_are_those_of_code_that_calls_them(source, tiles, tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "flags", lambda: frozenset({"amx_tile", "avx2", "sha_ni"}))
    assert aoti.instructions(tmp_path) == ()
    with zipfile.ZipFile(tmp_path / aoti.FILE, "w") as archive:
        archive.writestr("model/a.cpp", source)
    assert aoti.instructions(tmp_path) == (("avx2", "amx_tile") if tiles else ("avx2",))


def test_a_failing_compiler_is_the_reason(workload, tmp_path):
    case = Case.parse("conv/compile/fp32/b2/cpu/inference[package:aoti]")
    with (
        torch._inductor.config.patch({"cpp.cxx": ("false",)}),
        pytest.raises(Refusal, match="build_failed: InvalidCxxCompiler"),
    ):
        backend.build(workload(case), case, tmp_path, lambda name: contextlib.nullcontext())
