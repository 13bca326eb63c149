"""The file side of locating: the nodes of an ONNX file or an OpenVINO IR, a copy of it in which
more values are outputs, and a part of it as a file of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from heapq import heapify, heappop
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import onnx

# What rounds its first input to bytes.
QUANTISING = ("QuantizeLinear", "FakeQuantize")
# What passes its first input on, at most rounded.
PASSING = ("Identity", "DequantizeLinear", *QUANTISING)
# Outputs that are no tensors.
NO_TENSORS = ("SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SplitToSequence", "Optional")


class FileNode(NamedTuple):
    """A node of a file; inputs and outputs are names of values, constants among them.

    passes: whether its output is its first input, at most rounded.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    passes: bool

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.name else self.kind


class ModelFile(Protocol):
    """A model in a file. nodes: in an order in which each comes after those that it needs."""

    # Its name within a folder, who loads it, and the lines of a program that do.
    FILE: str
    RUNTIME: str
    IMPORTS: str
    CALL: str
    folder: Path
    nodes: list[FileNode]

    def expose(self, folder: Path, names: Sequence[str]) -> None:
        """Writes a copy into a folder, whose outputs are the file's own and these values."""

    def cut(self, folder: Path, nodes: Sequence[FileNode], inputs: Mapping[str, Any], output: str) -> None:
        """Writes the part that computes an output from inputs (name -> array) into a folder."""


class OnnxModel:
    """An ONNX file."""

    FILE = "model.onnx"
    RUNTIME = "ONNX Runtime"
    IMPORTS = "import onnxruntime as ort"
    CALL = """\
session = ort.InferenceSession(here / "model.onnx", providers=["CPUExecutionProvider"])
feed = {{port.name: value for port, value in zip(session.get_inputs(), inputs)}}
output = session.run(None, feed)[0]"""

    def __init__(self, folder: Path) -> None:
        import onnx

        self.folder = folder
        self.model = onnx.load(folder / self.FILE, load_external_data=False)
        self.nodes = in_order(
            FileNode(
                node.name,
                node.op_type,
                tuple(_read(node)),
                tuple(filter(None, node.output)),
                node.op_type in PASSING or _keeps_floats(node),
            )
            for node in self.model.graph.node
        )

    def expose(self, folder: Path, names: Sequence[str]) -> None:
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        onnx.save(model, folder / self.FILE)
        for file in self.folder.glob(f"{self.FILE}.*"):
            _link(file, folder / file.name)

    def cut(self, folder: Path, nodes: Sequence[FileNode], inputs: Mapping[str, Any], output: str) -> None:
        import onnx
        from onnx import helper

        whole = onnx.load(self.folder / self.FILE)
        by_outputs = {tuple(filter(None, node.output)): node for node in whole.graph.node}
        kept = [by_outputs[node.outputs] for node in nodes]
        read = {name for node in kept for name in _read(node)}
        ports = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(inputs[name].dtype), inputs[name].shape
            )
            for name in inputs
        ]
        weights = [tensor for tensor in whole.graph.initializer if tensor.name in read]
        graph = helper.make_graph(kept, "located", ports, [onnx.ValueInfoProto(name=output)], weights)
        part = helper.make_model(graph, opset_imports=whole.opset_import, functions=whole.functions)
        part.ir_version = whole.ir_version
        onnx.save(part, folder / self.FILE)


class IrFile:
    """An OpenVINO IR. Values without a name are called by their operation and a number."""

    FILE = "model.xml"
    RUNTIME = "OpenVINO"
    IMPORTS = """\
import sys

sys.modules.setdefault("openvino_telemetry", None)  # it sends an event when OpenVINO is imported
import openvino as ov"""
    CALL = """\
hint = {{"INFERENCE_PRECISION_HINT": "{hint}"}}
output = ov.Core().compile_model(here / "model.xml", "CPU", hint)(inputs)[0]"""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes = [
            FileNode(
                operation.friendly_name,
                operation.get_type_name(),
                tuple(_called(port.get_source_output()) for port in operation.inputs()),
                tuple(map(_called, operation.outputs())),
                operation.get_type_name() in PASSING or _stays_real(operation),
            )
            for operation in self._read().get_ordered_ops()
            if operation.get_type_name() not in ("Parameter", "Result")
        ]

    def _read(self) -> Any:
        return _openvino().Core().read_model(self.folder / self.FILE)

    def expose(self, folder: Path, names: Sequence[str]) -> None:
        model = self._read()
        ports = _ports(model)
        model.add_outputs([ports[name] for name in names])
        _openvino().save_model(model, folder / self.FILE, compress_to_fp16=False)

    def cut(self, folder: Path, nodes: Sequence[FileNode], inputs: Mapping[str, Any], output: str) -> None:
        ov, model = _openvino(), self._read()
        ports = _ports(model)
        parameters = []
        for name, value in inputs.items():
            port = ports[name]
            parameter = ov.op.Parameter(port.get_element_type(), ov.Shape(value.shape))
            for target in port.get_target_inputs():
                target.replace_source_output(parameter.output(0))
            parameters.append(parameter)
        part = ov.Model([ov.op.Result(ports[output])], parameters, "located")
        ov.save_model(part, folder / self.FILE, compress_to_fp16=False)


# What a folder may hold that can be looked into.
KINDS: tuple[type[OnnxModel] | type[IrFile], ...] = (OnnxModel, IrFile)


def in_order(nodes: Iterable[FileNode]) -> list[FileNode]:
    """Returns nodes so that each comes after those that it needs, and otherwise in the order that
    they have; ONNX Runtime's quantiser appends its own at the end.
    """
    listed = list(nodes)
    makers = {name: place for place, node in enumerate(listed) for name in node.outputs}
    sorter = TopologicalSorter(
        {place: {makers[name] for name in node.inputs if name in makers} for place, node in enumerate(listed)}
    )
    sorter.prepare()
    ready, order = list(sorter.get_ready()), []
    while ready:
        heapify(ready)
        order.append(listed[place := heappop(ready)])
        sorter.done(place)
        ready += sorter.get_ready()
    return order


def values(nodes: Iterable[FileNode]) -> list[str]:
    """Returns the names of the values that nodes compute, but for constants."""
    return [
        name
        for node in nodes
        if node.kind not in ("Constant", *NO_TENSORS)
        for name in node.outputs
    ]  # fmt: skip


def _read(node: onnx.NodeProto) -> list[str]:
    """Returns what a node reads, the nodes of its bodies included."""
    bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    inner = [name for body in bodies for part in body.node for name in _read(part)]
    made_inside = {name for body in bodies for part in body.node for name in part.output}
    return [*filter(None, node.input), *(name for name in inner if name not in made_inside)]


def _keeps_floats(node: onnx.NodeProto) -> bool:
    """Returns whether a node casts to floating point."""
    import onnx

    kinds = onnx.TensorProto
    floats = (kinds.FLOAT, kinds.FLOAT16, kinds.BFLOAT16, kinds.DOUBLE)
    return node.op_type == "Cast" and any(attribute.i in floats for attribute in node.attribute)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _called(port: Any) -> str:
    """Returns the name of a value, that of an output of the model first."""
    names = sorted(port.get_names(), key=lambda name: (not re.fullmatch(r"out\d+", name), name))
    return str(names[0]) if names else f"{port.get_node().friendly_name}:{port.get_index()}"


def _ports(model: Any) -> dict[str, Any]:
    return {_called(port): port for operation in model.get_ordered_ops() for port in operation.outputs()}


def _stays_real(operation: Any) -> bool:
    """Returns whether an operation converts floating point to floating point."""
    return operation.get_type_name() == "Convert" and all(
        port.get_element_type().is_real() for port in (operation.input(0), operation.output(0))
    )


def _openvino() -> Any:
    """Imports OpenVINO without its telemetry, which sends an event when it is imported."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
