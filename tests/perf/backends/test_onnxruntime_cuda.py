"""ONNX Runtime's CUDA provider, the real one of the wheel, on a stand-in for CUDA in the host's
memory: what it takes of a graph, and our path to it (binding, copies, profile).

No kernel runs there, so outputs mean nothing and no time is taken. The stand-in (standin_cuda.c) is
compiled here and loaded in child processes only.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from hotlap.perf.backends import onnxruntime as backend
from hotlap.perf.lookup import workloads
from hotlap.perf.terms.case import Case, Workload

SITE = Path(ort.__file__).parents[1]
SOURCE = Path(__file__).with_name("standin_cuda.c")
PROVIDER = SITE / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so"
HEADERS = [SITE / "nvidia" / "cu13" / "include", SITE / "triton" / "backends" / "nvidia" / "include"]
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
CHILD = """
import json, pathlib, sys
import msgspec, numpy as np
from hotlap.perf.backends import onnxruntime as backend
from hotlap.perf.terms.contract import Artefact
from hotlap.perf.terms.case import Case, Workload

case = Case.parse(sys.argv[1])
artefact = Artefact(case, pathlib.Path(sys.argv[2]), 2, None, pathlib.Path())
step = backend.load(artefact)
zeros = backend._zeros(step.about, case.batch, artefact.folder)
outputs = step.fetch(step.call(step.place(tuple(zeros.values()))))
placement = backend.placement(artefact, step)
print(json.dumps({
    "placement": msgspec.to_builtins(placement),
    "shapes": [output.shape for output in outputs],
    "options": step.about.get_provider_options(),
}))
"""


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    """What to preload.

    Each library has the one source and the names that the provider asks of all of them, under its
    own soname and version.
    """
    if not PROVIDER.is_file():
        pytest.skip("this onnxruntime has no CUDA provider: pip install onnxruntime-gpu")
    missing = [tool for tool in ("gcc", "nm") if shutil.which(tool) is None] + [
        str(folder.relative_to(SITE)) for folder in HEADERS if not folder.is_dir()
    ]
    if missing:
        pytest.skip(f"the stand-in is compiled with {' and '.join(missing)}, not found")
    folder = tmp_path_factory.mktemp("cuda")
    needed = [
        line.split()[-1].partition("@")
        for line in subprocess.run(
            ["nm", "-D", "--undefined-only", PROVIDER], capture_output=True, text=True, check=True
        ).stdout.splitlines()
    ]
    names = {name for name, _, library in needed if library.startswith("libcu") or name.startswith("cu")}
    # asked for by dlsym
    names |= {name.decode() for name in re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", PROVIDER.read_bytes())}
    libraries = {library for _, _, library in needed if library.startswith("libcu")} | {
        "libcuda.so.1",
        "libcurand.so.10",
        "libcudnn.so.9",
    }
    own = set(re.findall(r"(\w+)\(", SOURCE.read_text()))
    (folder / "others.c").write_text(
        "".join(f"int {name}(void) {{ return 0; }}\n" for name in sorted(names - own))
    )
    for library in libraries:
        (folder / "names.map").write_text(f"{library} {{ global: *; }};\n")
        command = [
            "gcc",
            "-w",
            "-shared",
            "-fPIC",
            *(f"-I{folder}" for folder in HEADERS),
            f"-Wl,-soname,{library}",
            f"-Wl,--version-script={folder}/names.map",
        ]
        subprocess.run([*command, "-o", folder / library, SOURCE, folder / "others.c"], check=True)
    return ":".join(str(folder / library) for library in sorted(libraries))


@pytest.fixture
def on_cuda(standin):
    """on_cuda(case id, folder with model.onnx): what the backend says of it, in a process of its
    own.
    """

    def go(case: str, folder: Path) -> dict:
        done = subprocess.run(
            [sys.executable, "-P", "-c", CHILD, case, str(folder)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env={**os.environ, "LD_PRELOAD": standin},
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return go


def built(workload: Workload, case: str, folder: Path) -> Path:
    (folder / "case").mkdir()
    backend.build(workload, Case.parse(case), folder / "case", contextlib.nullcontext)
    return folder / "case"


def graph(folder: Path, *nodes: tuple[str, str, str]) -> Path:
    """model.onnx of these operators in a row, on a batch of 4 x 4 matrices."""
    produced = [
        helper.make_node(name, [before, "weights"] if name == "MatMul" else [before], [after])
        for name, before, after in nodes
    ]
    ends = (
        helper.make_tensor_value_info("in", TensorProto.FLOAT, [1, 4, 4]),
        helper.make_tensor_value_info(nodes[-1][2], TensorProto.FLOAT, None),
    )
    content = helper.make_graph(
        produced,
        "planted",
        [ends[0]],
        [ends[1]],
        [onnx.numpy_helper.from_array(np.ones((4, 4), "float32"), "weights")],
    )
    onnx.save(
        helper.make_model(content, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        folder / backend.MODEL,
    )
    return folder


@pytest.mark.parametrize(
    ("case", "shapes"),
    [
        ("mlp/onnxruntime/fp32/b2", [[2, 4], [2, 16]]),
        ("conv/onnxruntime/fp32/b2", [[2, 5]]),
        ("attention/onnxruntime/fp32/b3", [[3, 6, 16]]),
        ("attention/onnxruntime/fp16/b3", [[3, 6, 16]]),
    ],
)
def test_it_takes_every_node_and_the_call_goes_through(workload, on_cuda, tmp_path, case, shapes):
    results = on_cuda(
        f"{case}/cuda:0/inference",
        built(workload(Case.parse(f"{case}/cuda:0/inference")), f"{case}/cuda:0/inference", tmp_path),
    )
    placement = results["placement"]
    assert results["shapes"] == shapes
    assert (
        placement["ran_on"] == {CUDA: placement["counters"]["nodes"]} and placement["counters"]["nodes"] > 0
    )
    assert (
        placement["wrong"] is None
        and placement["partial"] == ""
        and placement["counters"]["memcpy_nodes"] == 0
    )


@pytest.mark.parametrize("name", ["mlp", "resnet", "vit", "gpt"])
def test_it_takes_the_whole_of_our_own_models(on_cuda, tmp_path, name):
    case = f"{name}/onnxruntime/fp32/b1/cuda:0/inference"
    placement = on_cuda(case, built(workloads.load(workloads.Reference(name)), case, tmp_path))["placement"]
    assert list(placement["ran_on"]) == [CUDA] and placement["counters"]["memcpy_nodes"] == 0


def test_an_operator_that_only_the_cpu_has_is_named_with_its_copies(on_cuda, tmp_path):
    graph(tmp_path, ("MatMul", "in", "a"), ("Relu", "a", "b"), ("Det", "b", "c"), ("Exp", "c", "out"))
    placement = on_cuda("planted/onnxruntime/fp32/b1/cuda:0/inference", tmp_path)["placement"]
    assert placement["ran_on"] == {CUDA: 3, CPU: 1} and placement["wrong"] is None
    assert (
        placement["partial"]
        == f"1 of 4 nodes did not run on {CUDA}: 1 Det on {CPU}, with 2 copies between the devices in every"
        " call"
    )


def test_a_copy_between_the_devices_is_no_work_of_the_device(on_cuda, tmp_path):
    """One node each.

    The copy between them is one of the provider's own, and does not make what it did the larger
    part.
    """
    graph(tmp_path, ("MatMul", "in", "a"), ("Det", "a", "out"))
    placement = on_cuda("planted/onnxruntime/fp32/b1/cuda:0/inference", tmp_path)["placement"]
    assert placement["ran_on"] == {CUDA: 1, CPU: 1} and placement["counters"]["memcpy_nodes"] == 1
    assert placement["wrong"]["code"] == "wrong_provider" and f"1 on {CPU}" in placement["wrong"]["detail"]


def test_tf32_is_on_only_where_it_is_asked_for(on_cuda, tmp_path):
    graph(tmp_path, ("MatMul", "in", "out"))
    overrides = {
        precision: on_cuda(f"planted/onnxruntime/{precision}/b1/cuda:0/inference", tmp_path)["options"][CUDA][
            "use_tf32"
        ]
        for precision in ("fp32", "tf32")
    }
    assert overrides == {"fp32": "0", "tf32": "1"}
