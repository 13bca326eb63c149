"""Faults planted in exported files, one at a time: each is found at the node where it was planted,
and nothing is found where there is none.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn
from torch.nn import functional as F

from hotlap.perf.backends import onnxruntime
from hotlap.perf.lowering import export, located, quantise
from hotlap.perf.lowering.calibration import Calibration
from hotlap.perf.lowering.locate import Refused, locate
from hotlap.perf.lowering.located import Fault
from hotlap.perf.lowering.model_file import OnnxFile
from hotlap.perf.lowering.torch_graph import TorchGraph
from hotlap.perf.oracle import check
from hotlap.perf.terms.case import Case, Workload
from hotlap.perf.terms.contract import Arrays, Artefact

BATCH = 2


class Net(nn.Module):
    """One of everything that a fault is planted in, with something before and after it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.layer_norm, self.first = nn.LayerNorm(16), nn.Linear(16, 16)
        self.query, self.head = nn.Linear(16, 16), nn.Linear(16, 16)
        self.register_buffer("order", torch.tensor([3, 1, 0, 2, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, 3, 16, 16) -> (B, 16)
        x = F.relu(self.norm(self.conv(x)))  # (B, 8, 16, 16)
        x = F.interpolate(x, size=(6, 6), mode="bicubic", antialias=True, align_corners=False)
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
    return planted_in(Net(), torch.randn(BATCH, 3, 16, 16), tmp_path_factory.mktemp("net"))


def outcome(
    planted: Planted, folder: Path, precision: str = "fp32", **options: str
) -> tuple[Fault | str, OnnxFile]:
    """What is located in the file of a folder, whose answer was refused."""
    case = Case("w", "onnxruntime", precision, BATCH, options=tuple(sorted(options.items())))
    artefact = Artefact(case, folder, 1, lambda: planted.workload, None)

    def load(place: Path) -> Callable[[Arrays], Arrays]:
        step = onnxruntime.load(replace(artefact, folder=place))
        return lambda arrays: step.fetch(step.call(step.place(arrays)))

    inputs = tuple(value.numpy() for value in planted.workload.inputs)
    outputs = load(folder)(inputs)
    exact = planted.graph.everything(inputs)
    true = [exact[node].numpy() for node in planted.graph.outputs]
    with torch.inference_mode():
        eager = planted.workload.module(*planted.workload.inputs).numpy()
    allowed = [check.distance(eager, true[0], eager, precision, 256).tolerance]
    file = OnnxFile(folder)
    return locate(planted.graph, file, load, Refused(inputs, outputs, allowed, precision, 256)), file


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
    fault, file = outcome(net, tmp_path)
    assert isinstance(fault, Fault), fault
    assert fault.node.name == name
    print(fault.line("x", ""))


def test_nothing_is_found_in_a_file_without_a_fault(net: Planted) -> None:
    fault, _ = outcome(net, net.source)
    assert isinstance(fault, str) and fault.startswith("no wrong node: "), fault
    print(fault)
