"""The graph of an ONNX file: its inputs, its weights in another type, and how to call it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..terms.reasons import Refusal

Arrays = Sequence[np.ndarray]
Run = Callable[[Arrays], dict[str, np.ndarray]]

# protobuf refuses messages of 2 GiB (protobuf.dev/programming-guides/encoding, "Message
# Structure"); the graph needs some room.
LARGEST_FILE_BYTES = 1_900_000_000
# Floating-point types of 16 bits.
HALVES = {"float16": onnx.TensorProto.FLOAT16, "bfloat16": onnx.TensorProto.BFLOAT16}
# Attributes of Constant that are numbers and not tensors, which are fp32 by the standard.
PLAIN_CONSTANTS = ("value_float", "value_floats")


def read(path: Path, weights: bool = True) -> onnx.ModelProto:
    """Returns the model of a file. Raises Refusal(invalid_input)."""
    try:
        return onnx.load(path, load_external_data=weights)
    except Exception as error:  # protobuf and onnx raise classes without a common base
        lines = [line for line in str(error).splitlines() if line.strip()]
        what = lines[0] if lines else type(error).__name__
        raise Refusal("invalid_input", f"{path} cannot be read as an ONNX file: {what}") from error


def write(model: onnx.ModelProto, path: Path) -> None:
    """Writes a model; above 2 GB its weights lie beside it, in one file of its name and .data."""
    beside = model.ByteSize() > LARGEST_FILE_BYTES
    onnx.save(model, path, save_as_external_data=beside, location=f"{path.name}.data")


def halves(model: onnx.ModelProto) -> list[str]:
    """Returns the 16-bit floating-point types that a model's weights and inputs have, by name."""
    values = [tensor.data_type for graph in bodies(model.graph) for tensor in graph.initializer]
    values += [value.type.tensor_type.elem_type for value in inputs(model)]
    return [name for name, kind in HALVES.items() if kind in values]


def raised(model: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    """Returns the model with its 16-bit floating-point types changed in place to another."""
    for name in halves(model):
        retype(model, HALVES[name], kind)
    return model


def inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Returns what a call gives: old files list the weights among the inputs too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def bodies(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yields the graph and those inside its branches and loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from bodies(inner)


def retype(model: onnx.ModelProto, old: int, new: int) -> None:
    """Changes every tensor, cast and declaration of one floating-point type to another.

    Factors of Resize are fp32 by the standard and stay.
    """
    for graph in bodies(model.graph):
        retype_graph(graph, old, new)


def retype_graph(graph: onnx.GraphProto, old: int, new: int) -> None:
    fixed = {name for node in graph.node if node.op_type == "Resize" for name in node.input[1:3] if name}
    kind = onnx.helper.tensor_dtype_to_np_dtype(new)
    for node in graph.node:
        if node.op_type in ("Constant", "ConstantOfShape") and node.output[0] not in fixed:
            as_tensor(node, old)
    constants = [
        attribute.t
        for node in graph.node
        if node.op_type in ("Constant", "ConstantOfShape") and node.output[0] not in fixed
        for attribute in node.attribute
        if attribute.HasField("t")
    ]
    weights = [tensor for tensor in graph.initializer if tensor.name not in fixed]
    for tensor in [*weights, *constants]:
        if tensor.data_type == old:
            values = onnx.numpy_helper.to_array(tensor).astype(kind)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == old:
                attribute.i = new
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if value.type.tensor_type.elem_type == old and value.name not in fixed:
            value.type.tensor_type.elem_type = new


def as_tensor(node: onnx.NodeProto, kind: int) -> None:
    """Makes a tensor of a constant that is written as plain numbers or left to its default, 0."""
    if kind != onnx.TensorProto.FLOAT:
        return
    plain = [attribute for attribute in node.attribute if attribute.name in PLAIN_CONSTANTS]
    if plain:
        numbers = onnx.helper.get_attribute_value(plain[0])
    elif node.op_type == "ConstantOfShape" and not node.attribute:
        numbers = [0.0]
    else:
        return
    del node.attribute[:]
    tensor = onnx.numpy_helper.from_array(np.array(numbers, np.float32))
    node.attribute.append(onnx.helper.make_attribute("value", tensor))


def session(model: onnx.ModelProto | Path, threads: int = 0) -> Run:
    """Returns a function that runs a model by ONNX Runtime's CPU provider, node by node and
    unoptimised. threads: 0 for all cores.

    Raises Refusal(invalid_input) where it does not load; the function raises RuntimeError.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    try:
        with tempfile.TemporaryDirectory() as folder:
            source: Any = str(model) if isinstance(model, Path) else loadable(model, Path(folder))
            opened = ort.InferenceSession(source, options, ["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise Refusal(
            "invalid_input", f"ONNX Runtime {ort.__version__} does not load the file: {cause(error)}"
        ) from error
    ports = [(port.name, dtype_of(port.type)) for port in opened.get_inputs()]
    results = [port.name for port in opened.get_outputs()]

    def run(values: Arrays) -> dict[str, np.ndarray]:
        feed = {name: np.asarray(value, kind) for (name, kind), value in zip(ports, values, strict=True)}
        try:
            return dict(zip(results, opened.run(None, feed), strict=True))
        except Exception as error:
            raise RuntimeError(f"ONNX Runtime {ort.__version__}: {cause(error)}") from error

    return run


def loadable(model: onnx.ModelProto, folder: Path) -> bytes | str:
    """Returns a model as ONNX Runtime takes it: its bytes, or above 2 GB a file in the folder."""
    if model.ByteSize() <= LARGEST_FILE_BYTES:
        return bytes(model.SerializeToString())
    write(model, folder / "model.onnx")
    return str(folder / "model.onnx")


def evaluator(model: onnx.ModelProto) -> Run:
    """Returns a function that runs a model by ONNX's own reference evaluator, operator by operator
    in numpy: slow, and in any floating-point type. The function raises what numpy and onnx raise.
    """
    from onnx.reference import ReferenceEvaluator

    reference = ReferenceEvaluator(model)
    ports = [
        (value.name, onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        for value in inputs(model)
    ]

    def run(values: Arrays) -> dict[str, np.ndarray]:
        feed = {name: np.asarray(value, kind) for (name, kind), value in zip(ports, values, strict=True)}
        outputs = reference.run(None, feed)
        return {name: np.asarray(value) for name, value in zip(reference.output_names, outputs, strict=True)}

    return run


def dtype_of(port: str) -> str:
    """Returns numpy's name of a port's type, such as float32 for `tensor(float)`. Raises
    Refusal(invalid_input) for a sequence or a map.
    """
    kind = port.removeprefix("tensor(").removesuffix(")")
    if not port.startswith("tensor(") or kind == "string":
        raise Refusal("invalid_input", f"an input of the file is a {port}; expected tensors of numbers")
    return {"float": "float32", "double": "float64"}.get(kind, kind)


def cause(error: BaseException) -> str:
    """Returns what ONNX Runtime says is wrong, without its prefix and the places in its own
    source.
    """
    text = " ".join(str(error).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", text)
    return re.sub(r"/\S+\.(?:cc|h):\d+ \S+ ", "", text)[:400]
