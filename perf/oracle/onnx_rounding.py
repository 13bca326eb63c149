"""What the oracle asks of an ONNX file where a module of torch answers through its operators: what
rounding costs its outputs (rounding.py), what 8 bits cost them (rounded.py), what a call does
(counts.py). The graph is changed accordingly, and ONNX Runtime runs it.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import onnx
import torch

from ..lookup import onnx_graph
from ..lookup.onnx_file import OnnxFile
from . import rounded
from .check import EPSILON
from .counts import Counts
from .rounding import ROUNDED_ALIKE, ULPS, RoundingCost, cost
from .rows import Inputs

# Operators that give on values as they are.
MOVES = re.compile(
    "Cast|Clip|Compress|Concat|Constant|ConstantOfShape|DepthToSpace|Dropout|Expand|Flatten|Gather"
    "|GatherElements|GatherND|Identity|If|Loop|Max|MaxPool|Min|Pad|Range|Relu|Reshape|ScatterElements"
    "|ScatterND|Shape|Size|Slice|SpaceToDepth|Split|Squeeze|Tile|TopK|Transpose|Trilu|Unsqueeze|Where"
)
# Those that everybody rounds alike, by ONNX's names (rounding.ROUNDED_ALIKE).
ALIKE = {name.capitalize() for name in ROUNDED_ALIKE}
# Operators that 8 bits are for, with the axis of their weights that a scale goes along.
IN_8_BITS = {"Conv": 0, "Gemm": -1, "MatMul": -1}


class Sizes(NamedTuple):
    """Shapes of values and which of them are fp32, as far as ONNX's shape inference knows."""

    shapes: dict[str, tuple[int, ...]]
    floats: set[str]


def sizes(model: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> Sizes:
    """Returns the sizes of a call with these inputs."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for port, value in zip(onnx_graph.inputs(fixed), inputs, strict=True):
        for dimension, size in zip(port.type.tensor_type.shape.dim, value.shape, strict=True):
            dimension.dim_value = size
    for output in fixed.graph.output:
        output.type.tensor_type.ClearField("shape")
    del fixed.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    floats = set()
    for value in [*graph.input, *graph.value_info, *graph.output]:
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(each.HasField("dim_value") for each in tensor.shape.dim):
            shapes[value.name] = tuple(each.dim_value for each in tensor.shape.dim)
        if tensor.elem_type == onnx.TensorProto.FLOAT:
            floats.add(value.name)
    return Sizes(shapes, floats)


def counted(module: OnnxFile, inputs: Inputs) -> Counts:
    """Returns the counts of one call: FLOPs of products and convolutions as torch counts them, two
    a term.
    """
    seen = sizes(module.graph.structure, arrays(inputs))
    terms = flops = 0
    for node in module.graph.structure.graph.node:
        summed = terms_of(node, seen.shapes)
        terms = max(terms, summed)
        if node.op_type in ("MatMul", "Gemm", "Conv", "ConvTranspose"):
            flops += 2 * summed * math.prod(seen.shapes.get(node.output[0], (0,)))
    return Counts(flops, len(module.graph.structure.graph.node), max(1, terms))


def terms_of(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    """Returns how many terms an operator sums for one element; 1 where that is not known."""
    first, second = ([shapes.get(name, ()) for name in node.input] + [(), ()])[:2]
    output = shapes.get(node.output[0], ())
    if node.op_type == "MatMul" and first:
        return first[-1]
    if node.op_type == "Gemm" and first:
        transposed = any(each.name == "transA" and each.i for each in node.attribute)
        return first[0 if transposed else -1]
    if node.op_type in ("Conv", "ConvTranspose") and second:
        return math.prod(second[1:])
    if node.op_type in ("LSTM", "GRU", "RNN") and second:
        return second[-1]
    reduces = node.op_type.startswith("Reduce") or node.op_type.endswith("AveragePool")
    if reduces and first and output and 0 < math.prod(output) < math.prod(first):
        return math.prod(first) // math.prod(output)
    return 1


def costs(module: OnnxFile, inputs: Inputs) -> list[RoundingCost]:
    """Returns what rounding costs each output that is floating point, and 0 of the others."""
    run = module.graph.rewritten(partial(move, seen=sizes(module.graph.structure, arrays(inputs))))
    exact = module.graph.run(torch.float32)(arrays(inputs))
    return cost(lambda seed: tensors(run(arrays(inputs))), tensors(exact))


def move(model: onnx.ModelProto, seen: Sizes) -> None:
    """Lets each operator's result be moved by chance, anew in each call, by what rounding.Rounded
    moves a result in fp32.
    """
    nodes: list[onnx.NodeProto] = []
    for index, node in enumerate(model.graph.node):
        nodes.append(node)
        if MOVES.fullmatch(node.op_type):
            continue
        for position, name in enumerate(node.output):
            if name in seen.floats:
                node.output[position] = f"{name}:exact"
                spread = ULPS[torch.float32] * EPSILON["fp32"] * math.sqrt(terms_of(node, seen.shapes))
                held = node.op_type in ALIKE
                nodes += moved(f"{name}:exact", name, spread, held, index)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def moved(exact: str, name: str, spread: float, held: bool, seed: int) -> list[onnx.NodeProto]:
    """Returns nodes that multiply by 1 and a uniform number of that standard deviation.

    held: what are whole numbers stay.
    """
    width = spread * math.sqrt(3)  # a uniform number of +-w has a standard deviation of w / sqrt(3)
    factor, product = f"{name}:factor", f"{name}:moved" if held else name
    nodes = [
        onnx.helper.make_node(
            "RandomUniformLike", [exact], [factor], low=1 - width, high=1 + width, seed=float(seed)
        ),
        onnx.helper.make_node("Mul", [exact, factor], [product]),
    ]
    if held:
        nodes += [
            onnx.helper.make_node("Floor", [exact], [f"{name}:floor"]),
            onnx.helper.make_node("Equal", [exact, f"{name}:floor"], [f"{name}:whole"]),
            onnx.helper.make_node("Where", [f"{name}:whole", exact, product], [name]),
        ]
    return nodes


@contextlib.contextmanager
def in_8_bits(module: OnnxFile) -> Iterator[None]:
    """Lets the module run with weights and inputs of its products rounded to 8 bits."""
    before = module.graph.runs
    module.graph.runs = {**before, torch.float32: module.graph.rewritten(round_products)}
    try:
        yield
    finally:
        module.graph.runs = before


def round_products(model: onnx.ModelProto) -> None:
    """Rounds the weights of products, and the inputs of each in every call, over their range."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type in IN_8_BITS and node.input[1] in weights:
            tensor = weights[node.input[1]]
            axis = IN_8_BITS[node.op_type]
            if any(each.name == "transB" and each.i for each in node.attribute):
                axis = 0
            values = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
            if values.ndim > 1 and values.dtype == torch.float32:
                along = rounded.weights(values.movedim(axis, 0)).movedim(0, axis)
                tensor.CopyFrom(onnx.numpy_helper.from_array(along.contiguous().numpy(), tensor.name))
                nodes += fake_quantised(node, len(nodes))
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def fake_quantised(node: onnx.NodeProto, number: int) -> list[onnx.NodeProto]:
    """Returns nodes that round a product's first input to 8 bits over the range that it has."""
    name = f"{node.input[0]}:{number}"
    parts = [f"{name}:{part}" for part in ("bytes", "scale", "zero")]
    nodes = [
        onnx.helper.make_node("DynamicQuantizeLinear", [node.input[0]], parts),
        onnx.helper.make_node("DequantizeLinear", parts, [f"{name}:rounded"]),
    ]
    node.input[0] = f"{name}:rounded"
    return nodes


def arrays(inputs: Inputs) -> list[np.ndarray]:
    return [value.numpy() for value in inputs]


def tensors(outputs: dict[str, np.ndarray]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(np.array(value)) for value in outputs.values())
