"""Faults planted in exported files, one at a time: each is found at the node where it was planted,
and nothing is found where there is none.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn
from torch.nn import functional as F

from hotlap.perf.backends import onnxruntime, openvino
from hotlap.perf.lowering import export, located, quantise
from hotlap.perf.lowering.calibration import Calibration
from hotlap.perf.lowering.deviation import RefusedBatch, worst
from hotlap.perf.lowering.locate import Load, locate
from hotlap.perf.lowering.located import Fault
from hotlap.perf.lowering.model_file import IrFile, ModelFile, OnnxModel
from hotlap.perf.lowering.torch_graph import TorchGraph
from hotlap.perf.machine import cpu
from hotlap.perf.oracle import check
from hotlap.perf.terms.case import Case, Workload
from hotlap.perf.terms.contract import Arrays, Artefact
from hotlap.perf.terms.reasons import Refusal

BATCH = 2
# Longer than any sum of the models here.
TERMS = 256


class Net(nn.Module):
    """One of everything that a fault is planted in, with something before and after it."""

    def __init__(self, antialias: bool) -> None:
        super().__init__()
        self.antialias = antialias
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.layer_norm, self.first = nn.LayerNorm(16), nn.Linear(16, 16)
        self.query, self.head = nn.Linear(16, 16), nn.Linear(16, 16)
        self.register_buffer("order", torch.tensor([3, 1, 0, 2, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, 3, 16, 16) -> (B, 16)
        x = F.relu(self.norm(self.conv(x)))  # (B, 8, 16, 16)
        x = F.interpolate(x, size=(6, 6), mode="bicubic", antialias=self.antialias)
        x = x.clamp(-0.05, 0.3)
        x = (8 * x).to(torch.int32).to(x.dtype) + x
        x = x.flatten(1)[:, 7:263].reshape(-1, 16, 16)  # (B, 16, 16)
        x = x.transpose(1, 2)
        x = F.gelu(self.first(self.layer_norm(x)))
        x = (self.query(x) @ x.transpose(1, 2)).softmax(-1) @ x
        return self.head(x.index_select(2, self.order).mean(1)).tanh()


class Planted(NamedTuple):
    """A model, its graph in torch, and the folder of its file without a fault."""

    workload: Workload
    graph: TorchGraph
    source: Path


def planted_in(module: nn.Module, inputs: torch.Tensor, folder: Path) -> Planted:
    workload = Workload("w", module.eval(), (inputs,))
    source = export.export(workload, Case("w", "onnxruntime"), folder).folder
    return Planted(workload, TorchGraph(workload), source)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    torch.manual_seed(0)
    return planted_in(Net(antialias=True), torch.randn(BATCH, 3, 16, 16), tmp_path_factory.mktemp("net"))


@pytest.fixture(scope="module")
def plainer(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """Without antialias, which OpenVINO 2026.4 ignores in cubic interpolation."""
    torch.manual_seed(0)
    return planted_in(Net(antialias=False), torch.randn(BATCH, 3, 16, 16), tmp_path_factory.mktemp("net"))


def loading(backend: ModuleType, planted: Planted, folder: Path, precision: str = "fp32") -> Load:
    case = Case("w", backend.__name__.rpartition(".")[2], precision, BATCH)
    artefact = Artefact(case, folder, 1, lambda: planted.workload, None)

    def load(place: Path) -> Callable[[Arrays], Arrays]:
        step = backend.load(replace(artefact, folder=place))
        return lambda arrays: step.fetch(step.call(step.place(arrays)))

    return load


def outcome(
    planted: Planted, file: ModelFile, folder: Path, load: Load, precision: str = "fp32"
) -> Fault | str:
    """What is located in a file, whose answer was refused."""
    inputs = tuple(value.numpy() for value in planted.workload.inputs)
    exact = planted.graph.everything(inputs)
    true = [exact[node].numpy() for node in planted.graph.outputs]
    bound = dict(zip(planted.graph.inputs, inputs, strict=True))
    eager = planted.graph.values(planted.graph.outputs, bound, precision)[planted.graph.outputs[0]].numpy()
    allowed = [check.distance(eager, true[0], eager, precision, TERMS).tolerance]
    refused = RefusedBatch(inputs, load(file.folder)(inputs), allowed, precision, TERMS)
    return locate(planted.graph, file, load, refused, folder)


Edit = Callable[[onnx.GraphProto], str]


def node_of(graph: onnx.GraphProto, kind: str, place: int = 0) -> Any:
    return [node for node in graph.node if node.op_type == kind][place]


def set_to(node: onnx.NodeProto, **attributes: Any) -> str:
    kept = [attribute for attribute in node.attribute if attribute.name not in attributes]
    del node.attribute[:]
    node.attribute.extend(
        [*kept, *(helper.make_attribute(name, value) for name, value in attributes.items())]
    )
    return node.name


def changed(graph: onnx.GraphProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Changes a weight; only the node that is asked for gets it, under a name of its own."""
    tensor = next(each for each in graph.initializer if each.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))


def own(graph: onnx.GraphProto, node: onnx.NodeProto, place: int, value: np.ndarray) -> str:
    name = f"planted_{node.input[place]}"
    graph.initializer.append(numpy_helper.from_array(value, name))
    node.input[place] = name
    return node.name


def held(graph: onnx.GraphProto, node: onnx.NodeProto, place: int) -> np.ndarray:
    tensor = next(each for each in graph.initializer if each.name == node.input[place])
    return numpy_helper.to_array(tensor)


def bias(graph: onnx.GraphProto) -> str:
    changed(graph, "head.bias", lambda value: value + 0.05 * np.eye(16, dtype=np.float32)[3])
    return node_of(graph, "Gemm").name


def cast(graph: onnx.GraphProto) -> str:
    """The second cast has nothing to do then, and its output is the first one's input."""
    first, second = node_of(graph, "Cast", 0), node_of(graph, "Cast", 1)
    second.input[0] = first.input[0]
    graph.node.remove(first)
    return second.name


def transpose(graph: onnx.GraphProto) -> str:
    return set_to(node_of(graph, "Transpose"), perm=[0, 1, 2])


def antialias(graph: onnx.GraphProto) -> str:
    return set_to(node_of(graph, "Resize"), antialias=0)


def epsilon(graph: onnx.GraphProto) -> str:
    return set_to(node_of(graph, "LayerNormalization"), epsilon=1e-2)


def axis(graph: onnx.GraphProto) -> str:
    return set_to(node_of(graph, "Softmax"), axis=1)


def padding(graph: onnx.GraphProto) -> str:
    return set_to(node_of(graph, "Conv"), pads=[0, 0, 2, 2])


def transposed(graph: onnx.GraphProto) -> str:
    node = node_of(graph, "Gemm")
    before = next((each.i for each in node.attribute if each.name == "transB"), 0)
    return set_to(node, transB=1 - before)


def approximate(graph: onnx.GraphProto) -> str:
    return set_to(node_of(graph, "Gelu"), approximate="tanh")


def bounds(graph: onnx.GraphProto) -> str:
    node = node_of(graph, "Clip")
    return own(graph, node, 2, np.array(0.25, np.float32))


def slice_(graph: onnx.GraphProto) -> str:
    node = node_of(graph, "Slice")
    own(graph, node, 1, held(graph, node, 1) + 1)
    return own(graph, node, 2, held(graph, node, 2) + 1)


def gather(graph: onnx.GraphProto) -> str:
    node = node_of(graph, "Gather")
    return own(graph, node, 1, np.roll(held(graph, node, 1), 1))


FAULTS: tuple[Edit, ...] = (
    bias, cast, transpose, antialias, epsilon, axis, padding, transposed, approximate, bounds, slice_, gather,
)  # fmt: skip


def edited(planted: Planted, folder: Path, edit: Edit) -> str:
    """Writes the file with a fault into a folder; returns the name of the node that is wrong."""
    model = onnx.load(planted.source / "model.onnx")
    name = edit(model.graph)
    onnx.save(model, folder / "model.onnx")
    return name


@pytest.mark.parametrize("edit", FAULTS, ids=[edit.__name__.strip("_") for edit in FAULTS])
def test_a_fault_is_found_where_it_was_planted(net: Planted, tmp_path: Path, edit: Edit) -> None:
    name = edited(net, tmp_path, edit)
    fault = outcome(net, OnnxModel(tmp_path), tmp_path, loading(onnxruntime, net, tmp_path))
    assert isinstance(fault, Fault), fault
    assert fault.node.name == name
    assert fault.inputs_off < 1e-6 < 1e-4 < fault.off


def test_nothing_is_found_in_a_file_without_a_fault(net: Planted, tmp_path: Path) -> None:
    edited(net, tmp_path, lambda graph: "")
    fault = outcome(net, OnnxModel(tmp_path), tmp_path, loading(onnxruntime, net, tmp_path))
    assert isinstance(fault, str) and fault.startswith("no wrong node: torch computed 24 values"), fault


def test_of_two_faults_the_first_is_named(net: Planted, tmp_path: Path) -> None:
    name = edited(net, tmp_path, lambda graph: (approximate(graph), bounds(graph))[1])
    fault = outcome(net, OnnxModel(tmp_path), tmp_path, loading(onnxruntime, net, tmp_path))
    assert isinstance(fault, Fault) and fault.node.name == name


def test_what_is_not_finite_is_found_and_shown(net: Planted, tmp_path: Path) -> None:
    def edit(graph: onnx.GraphProto) -> str:
        changed(graph, "head.bias", lambda value: value * np.float32("nan"))
        return node_of(graph, "Gemm").name

    name, file = edited(net, tmp_path, edit), OnnxModel(tmp_path)
    fault = outcome(net, file, tmp_path, loading(onnxruntime, net, tmp_path))
    assert isinstance(fault, Fault) and fault.node.name == name
    notes = located.save(fault, file, tmp_path / "located", "fp32")
    assert "its output is not finite where fp64 is" in fault.line("located", notes)
    assert "run.py does not show it" not in notes


class Deaf(nn.Module):
    """Nothing that the first layer's last column holds reaches the output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight.data[:, -1] = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, 8) -> (B, 8)
        return self.second(self.first(x).tanh())


@pytest.fixture(scope="module")
def deaf(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    torch.manual_seed(0)
    return planted_in(Deaf(), torch.randn(BATCH, 8), tmp_path_factory.mktemp("deaf"))


def test_an_error_that_nothing_hears_of_is_passed_over(deaf: Planted, tmp_path: Path) -> None:
    def edit(graph: onnx.GraphProto) -> str:
        changed(graph, "first.bias", lambda value: value + np.eye(8, dtype=np.float32)[-1])
        changed(graph, "second.bias", lambda value: value + np.eye(8, dtype=np.float32)[0])
        return node_of(graph, "Gemm", 1).name

    name = edited(deaf, tmp_path, edit)
    fault = outcome(deaf, OnnxModel(tmp_path), tmp_path, loading(onnxruntime, deaf, tmp_path))
    assert isinstance(fault, Fault) and fault.node.name == name


def quantised(planted: Planted, folder: Path) -> onnx.ModelProto:
    """The file in int8, with ranges from inputs like those that it is judged on."""
    random = np.random.default_rng(0)
    shape = tuple(planted.workload.inputs[0].shape)
    batches = [(random.standard_normal(shape, dtype=np.float32),) for _ in range(20)]
    style = quantise.Style(signed=False, reduced=True, passing=True)
    quantise.quantise(
        planted.source / "model.onnx", folder / "model.onnx", Calibration(batches, "random inputs"), style
    )
    return onnx.load(folder / "model.onnx")


class Plain(nn.Module):
    """Products that int8 bears well."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, 32) -> (B, 32)
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    torch.manual_seed(0)
    return planted_in(Plain(), torch.randn(BATCH, 32), tmp_path_factory.mktemp("plain"))


def test_bytes_that_saturate_are_found_and_others_not(plain: Planted, tmp_path: Path) -> None:
    """The scale of one activation is a fifth of what its range needs."""
    model, load = quantised(plain, tmp_path), loading(onnxruntime, plain, tmp_path, "int8")
    fault = outcome(plain, OnnxModel(tmp_path), tmp_path, load, "int8")
    assert isinstance(fault, str) and fault.startswith("no wrong node"), fault
    for node in model.graph.node:
        if node.input[0].startswith("tanh_QuantizeLinear") or node.input[0] == "tanh":
            own(model.graph, node, 1, held(model.graph, node, 1) / 5)
            name = node.name
    onnx.save(model, tmp_path / "model.onnx")
    fault = outcome(plain, OnnxModel(tmp_path), tmp_path, load, "int8")
    assert isinstance(fault, Fault), fault
    assert fault.node.name == name and fault.node.kind == "DequantizeLinear"


def test_what_only_a_fusion_does_wrong_is_found(net: Planted, tmp_path: Path) -> None:
    """An optimiser is planted that makes a product of MatMul, Add and Gelu, with the wrong Gelu;
    where a value between them is an output, it leaves them alone.
    """
    edited(net, tmp_path, lambda graph: "")
    sound = loading(onnxruntime, net, tmp_path)

    def load(place: Path) -> Callable[[Arrays], Arrays]:
        model = onnx.load(place / "model.onnx")
        makers = {name for node in model.graph.node for name in node.output}
        shown = {port.name for port in model.graph.output}
        for node in model.graph.node:
            if node.op_type == "Gelu" and node.input[0] in makers - shown:
                set_to(node, approximate="tanh")
        optimised = tmp_path / "optimised"
        optimised.mkdir(exist_ok=True)
        onnx.save(model, optimised / "model.onnx")
        return sound(optimised)

    fault = outcome(net, OnnxModel(tmp_path), tmp_path, load)
    assert isinstance(fault, Fault), fault
    assert fault.fused and fault.node.kind == "Gelu"
    assert [node.kind for node in fault.before] == ["MatMul", "Add"]


def test_a_fusion_that_no_part_shows_is_said(net: Planted, tmp_path: Path) -> None:
    """An optimiser is planted that spoils a whole file in which nothing but the answer is read."""
    edited(net, tmp_path, lambda graph: "")
    sound = loading(onnxruntime, net, tmp_path)

    def load(place: Path) -> Callable[[Arrays], Arrays]:
        graph = onnx.load(place / "model.onnx").graph
        run = sound(place)
        spoilt = len(graph.output) == 1 and graph.name != "located"
        return lambda arrays: tuple(value + spoilt for value in run(arrays))

    fault = outcome(net, OnnxModel(tmp_path), tmp_path, load)
    assert isinstance(fault, str) and fault.startswith("no wrong node: "), fault
    assert fault.endswith("so ONNX Runtime's optimiser makes it wrong, in no part that could be found")


def test_what_is_saved_shows_the_fault_by_itself(net: Planted, tmp_path: Path) -> None:
    name = edited(net, tmp_path, axis)
    file = OnnxModel(tmp_path)
    fault = outcome(net, file, tmp_path, loading(onnxruntime, net, tmp_path))
    assert isinstance(fault, Fault)
    folder = tmp_path / "located"
    notes = located.save(fault, file, folder, "fp32")
    assert notes == "; the file itself says so (onnx.reference computes the same)"
    assert [node.name for node in onnx.load(folder / "model.onnx").graph.node] == [name]
    ended = subprocess.run([sys.executable, folder / "run.py"], capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and ended.stdout.startswith("off by 0."), ended
    assert len((folder / "run.py").read_text().splitlines()) < 30
    program = (folder / "run.py").read_text()
    assert {line.split()[1] for line in program.splitlines() if line.startswith("import")} == {
        "numpy", "onnxruntime",
    }  # fmt: skip
    part = onnx.load(folder / "model.onnx")
    set_to(part.graph.node[0], axis=-1)
    onnx.save(part, folder / "model.onnx")
    ended = subprocess.run([sys.executable, folder / "run.py"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended
    assert located.shown(folder) == "; run.py does not show it by itself"


def test_where_the_runtime_is_wrong_the_file_is_not_blamed(net: Planted, tmp_path: Path) -> None:
    """A runtime is planted that takes every Softmax over axis 1; what shows it is not ours."""
    edited(net, tmp_path, lambda graph: "")
    sound = loading(onnxruntime, net, tmp_path)

    def load(place: Path) -> Callable[[Arrays], Arrays]:
        model = onnx.load(place / "model.onnx")
        for node in model.graph.node:
            if node.op_type == "Softmax":
                set_to(node, axis=1)
        (tmp_path / "misread").mkdir(exist_ok=True)
        onnx.save(model, tmp_path / "misread" / "model.onnx")
        return sound(tmp_path / "misread")

    file = OnnxModel(tmp_path)
    fault = outcome(net, file, tmp_path, load)
    assert isinstance(fault, Fault) and fault.node.kind == "Softmax" and not fault.fused
    assert located.save(fault, file, tmp_path / "located", "fp32") == (
        "; the file is right and ONNX Runtime computes it wrongly; run.py does not show it by itself"
    )


class Rectified(nn.Module):
    """Its Relus are left to the range of the bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, 3, H, W) -> (B, 8, H, W)
        return F.relu(self.second(F.relu(self.first(x))))


def test_a_relu_that_the_bytes_stand_for_is_no_fault(tmp_path: Path) -> None:
    torch.manual_seed(0)
    planted = planted_in(Rectified(), torch.randn(BATCH, 3, 8, 8), tmp_path)
    (tmp_path / "int8").mkdir()
    model = quantised(planted, tmp_path / "int8")
    assert not any(node.op_type == "Relu" for node in model.graph.node), "the quantiser keeps them now"
    load = loading(onnxruntime, planted, tmp_path, "int8")
    fault = outcome(planted, OnnxModel(tmp_path / "int8"), tmp_path / "int8", load, "int8")
    assert isinstance(fault, str) and fault.startswith("no wrong node"), fault


def test_the_worst_batch_is_looked_into(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    inputs, true = random.standard_normal((3, 2, 4)), random.standard_normal((3, 2, 4))
    eager = true + 1e-7
    wrong = true + np.array([1e-7, 1e-2, 1e-3])[:, None, None]
    for kind, outputs in (("random", eager), ("real", wrong)):
        np.savez(
            tmp_path / f"{kind}.npz",
            allow_pickle=False,
            **{"in0": inputs, "ref0": true, "eager-fp32-0": eager},
        )
        np.savez(tmp_path / f"out-{kind}.npz", out0=outputs)
    outputs = {kind: tmp_path / f"out-{kind}.npz" for kind in ("random", "real")}
    refused = worst(tmp_path, outputs, "fp32", 16)
    assert (refused.inputs[0] == inputs[1]).all() and (refused.outputs[0] == wrong[1]).all()
    assert 2e-7 < refused.allowed[0] < 1e-6
    np.savez(tmp_path / "out-real.npz", out0=wrong, out1=wrong)
    with pytest.raises(Refusal, match="more or fewer outputs than torch gives"):
        worst(tmp_path, {"real": outputs["real"]}, "fp32", 16)


@pytest.mark.slow
@pytest.mark.parametrize("edit", [axis, approximate, transpose, padding], ids=lambda edit: edit.__name__)
def test_a_fault_is_found_in_an_ir(plainer: Planted, tmp_path: Path, edit: Edit) -> None:
    edited(plainer, tmp_path, edit)
    ir(tmp_path)
    file = IrFile(tmp_path)
    fault = outcome(plainer, file, tmp_path, loading(openvino, plainer, tmp_path))
    assert isinstance(fault, Fault), fault
    kinds = {axis: "Softmax", approximate: "Gelu", transpose: "Transpose", padding: "Add"}
    assert fault.node.kind == kinds[edit]
    assert located.save(fault, file, tmp_path / "located", "fp32") == ""


@pytest.mark.slow
def test_nothing_is_found_in_an_ir_without_a_fault(plainer: Planted, tmp_path: Path) -> None:
    edited(plainer, tmp_path, lambda graph: "")
    ir(tmp_path)
    fault = outcome(plainer, IrFile(tmp_path), tmp_path, loading(openvino, plainer, tmp_path))
    assert isinstance(fault, str) and fault.startswith("no wrong node: torch computed 24 values"), fault


def ir(folder: Path) -> None:
    library = openvino._library()
    model = library.Core().read_model(folder / "model.onnx")
    library.save_model(model, folder / "model.xml", compress_to_fp16=False)


class Saturating(nn.Module):
    """Activations near 1, weights near 1 or -1: two 8-bit products together are beyond 16 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = nn.Linear(16, 8), nn.Linear(8, 8)
        self.head.weight.data = torch.sign(self.head.weight) * (1 - 0.02 * torch.rand(8, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, 16) -> (B, 8)
        return torch.tanh(self.tail(torch.tanh(self.head(0.75 + 0.25 * torch.tanh(x)))))


def saturating(folder: Path) -> Planted:
    torch.manual_seed(0)
    return planted_in(Saturating(), torch.randn(BATCH, 16), folder)


def saturated(folder: str) -> None:
    """Prints what is located in an IR that was built on another CPU than this process has."""
    root = Path(folder)
    planted, file = saturating(root), IrFile(root / "case")
    fault = outcome(planted, file, root, loading(openvino, planted, root / "case", "int8"), "int8")
    print(json.dumps([str(fault.node), fault.fused, fault.off] if isinstance(fault, Fault) else [fault]))


@pytest.mark.slow
@pytest.mark.skipif(not cpu.eight_bit_products(), reason="needs a CPU with VNNI, to build for it")
def test_products_of_bytes_that_overflow_in_16_bits_are_found(tmp_path: Path) -> None:
    """Built for a CPU with VNNI, run as on one without; where values are outputs OpenVINO
    multiplies in fp32.
    """
    case = Case("w", "openvino", "int8", BATCH)
    (tmp_path / "case").mkdir()
    workload = saturating(tmp_path).workload
    openvino.build(workload, case, tmp_path / "case", lambda phase: contextlib.nullcontext())
    child = subprocess.run(
        [sys.executable, "-c", "import sys, test_locate; test_locate.saturated(sys.argv[1])", tmp_path],
        cwd=Path(__file__).parent,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    node, fused, off = json.loads(child.stdout.splitlines()[-1])
    assert (node, fused) == ("Add node_linear", True)
    assert 0.2 < off < 0.6, "38 % by docs/backends.md"
