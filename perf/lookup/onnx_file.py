"""An ONNX file as a workload: a module that ONNX Runtime runs node by node, nothing fused, which
stands for the file where eager stands for a network.

Where nobody gives inputs, they are made up, as far as the file tells what suits it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch

from ..terms.case import BATCH, Workload
from ..terms.reasons import Refusal
from . import checkpoint as checkpoints
from . import onnx_graph
from .onnx_graph import Run

# The argument that names a file of example inputs; all others are sizes and single numbers.
INPUTS = "inputs"
# Rows of made-up inputs where the file takes any batch: two, since one shows no axis of rows.
ROWS = 2
# Sizes of free axes where nobody said: of an image's height and width, and of all others.
IMAGE = 224
OTHERS = 64
# Sizes of axis 1 of an input with four axes that is an image.
CHANNELS = (1, 3, 4)


# What eager is of a workload whose module is a file.
EAGER = (
    "the module is an ONNX file: eager is ONNX Runtime without optimisation, whose threads eager's binding"
    " holds on one core; eager (library defaults) is the one to compare with"
)


class OnnxGraph:
    """The graph of a file in each precision, made when it is first asked for. Weights of 16 bits
    are fp32, as those of torch's modules are: the precision of each case says what it runs in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: dict[torch.dtype, Run] = {}

    @cached_property
    def structure(self) -> onnx.ModelProto:
        """The model without weights that lie beside the file."""
        return onnx_graph.read(self.path, weights=False)

    @cached_property
    def halves(self) -> list[str]:
        """The 16-bit types that the file has, by name."""
        return onnx_graph.halves(self.structure)

    def model(self) -> onnx.ModelProto:
        """Returns the model with its weights, in fp32. Raises Refusal(invalid_input)."""
        return onnx_graph.raised(onnx_graph.read(self.path), onnx.TensorProto.FLOAT)

    def run(self, dtype: torch.dtype) -> Run:
        """Returns what runs it with weights of that type. Raises Refusal(invalid_input)."""
        if dtype not in self.runs:
            self.runs[dtype] = self.in_fp64() if dtype == torch.float64 else self.by_runtime(dtype)
        return self.runs[dtype]

    def in_fp64(self) -> Run:
        model = self.model()
        onnx_graph.retype(model, onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
        return onnx_graph.evaluator(model)

    def by_runtime(self, dtype: torch.dtype) -> Run:
        """ONNX Runtime's CPU provider has no bf16: the weights are rounded to it, the rest is
        fp32.
        """
        kinds = {torch.float16: onnx.TensorProto.FLOAT16, torch.bfloat16: onnx.TensorProto.BFLOAT16}
        if dtype not in kinds and not self.halves:
            return onnx_graph.session(self.path, torch.get_num_threads())
        if dtype not in kinds:
            return self.rewritten(lambda model: None)
        return self.rewritten(lambda model: to_half(model, kinds[dtype]))

    def rewritten(self, change: Callable[[onnx.ModelProto], None]) -> Run:
        """Returns what runs the graph as changed in place."""
        model = self.model()
        change(model)
        return onnx_graph.session(model, torch.get_num_threads())


def to_half(model: onnx.ModelProto, kind: int) -> None:
    onnx_graph.retype(model, onnx.TensorProto.FLOAT, kind)
    if kind == onnx.TensorProto.BFLOAT16:
        onnx_graph.retype(model, kind, onnx.TensorProto.FLOAT)


class OnnxFile(torch.nn.Module):
    """An ONNX file as a module: takes the file's inputs in its order, and returns its outputs by
    name. Of a file with weights in fp32 it follows `.double()`, `.half()` and `.bfloat16()`.

    Raises Refusal(invalid_input) where the file cannot be read or run.
    """

    precision: torch.Tensor

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.graph = OnnxGraph(Path(path))
        self.register_buffer("precision", torch.empty(0), persistent=False)

    def forward(self, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        values = [value.float() if value.dtype == torch.bfloat16 else value for value in inputs]
        arrays = [value.detach().cpu().numpy() for value in values]
        outputs = self.graph.run(self.precision.dtype)(arrays)
        return {name: torch.from_numpy(np.array(value)) for name, value in outputs.items()}


class Port(NamedTuple):
    """An input that a file declares: the size or the name of each axis."""

    name: str
    dtype: np.dtype
    axes: tuple[int | str, ...]


def workload(path: Path, arguments: Mapping[str, str]) -> Workload:
    """Returns the workload of a file.

    arguments: `inputs` names an npz file of example inputs, by the file's own names; any other is
    the size of an axis that the file leaves free, or the value of an input of one number. Raises
    Refusal(invalid_input).
    """
    module = OnnxFile(path)
    ports = ports_of(module.graph.structure, path)
    rest = {name: number(name, text) for name, text in arguments.items() if name != INPUTS}
    known: set[str] = set()
    notes: tuple[str, ...] = ()
    if INPUTS in arguments:
        values = stored(Path(arguments[INPUTS]), ports)
    else:
        known |= {port.name for port in ports if not port.axes}
        known |= {name for port in ports for name in named(port)}
        values, notes = made_up(module.graph.structure, ports, rest)
    if unknown := sorted(rest.keys() - known):
        raise Refusal(
            "invalid_input",
            f"{path.name} has no {unknown[0]}: --arg takes {', '.join([INPUTS, *sorted(known)])}",
        )
    if halves := module.graph.halves:
        half = {"bfloat16": "bf16", "float16": "fp16"}[halves[0]]
        notes = (
            *notes,
            f"the file is in {' and '.join(halves)}: fp32 entrants run it in fp32; --precisions {half} runs"
            " it as it is",
        )
    rows = {port.axes[0] if port.axes else None for port in ports}
    alike = len(rows) == 1 and None not in rows
    free = alike and all(isinstance(row, str) for row in rows)
    axes = {port.name: renamed(port, free) for port in ports}
    return Workload(
        path.name,
        module,
        tuple(torch.from_numpy(value) for value in values),
        dynamic=free,
        batched=alike,
        weights=checkpoints.described(path).removeprefix("checkpoint "),
        names=tuple(port.name for port in ports),
        axes={name: words for name, words in axes.items() if words},
        notes=notes,
    )


def ports_of(model: onnx.ModelProto, path: Path) -> list[Port]:
    """Returns the inputs of a file. Raises Refusal(invalid_input)."""
    ports = []
    for value in onnx_graph.inputs(model):
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or tensor.elem_type == onnx.TensorProto.STRING:
            raise Refusal(
                "invalid_input",
                f"{path.name}: input {value.name} is no tensor of numbers, and others are not measured",
            )
        if not tensor.HasField("shape"):
            raise Refusal(
                "invalid_input",
                f"{path.name}: input {value.name} has no number of axes; give it a shape when you export",
            )
        axes = tuple(
            dimension.dim_value
            if dimension.HasField("dim_value") and dimension.dim_value > 0
            else re.sub(r"\W", "_", dimension.dim_param) or f"{value.name}_{axis}"
            for axis, dimension in enumerate(tensor.shape.dim)
        )
        ports.append(Port(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), axes))
    if not ports:
        raise Refusal("invalid_input", f"{path.name} has no inputs, so its answer is a constant")
    return ports


def named(port: Port) -> list[str]:
    return [axis for axis in port.axes if isinstance(axis, str)]


def renamed(port: Port, free: bool) -> dict[int, str]:
    """Returns the free axes besides the first, under names that the batch does not have."""
    return {
        axis: f"{name}_{axis}" if name == BATCH else name
        for axis, name in enumerate(port.axes)
        if isinstance(name, str) and axis > 0 and (not free or name != port.axes[0])
    }


def number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Refusal(
            "invalid_input",
            f"--arg {name}={text}: expected a size or a number; files of inputs go with --arg"
            f" {INPUTS}=FILE.npz",
        ) from None


def stored(path: Path, ports: list[Port]) -> list[np.ndarray]:
    """Returns the example inputs of an npz file. Raises Refusal(invalid_input)."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names, values = set(arrays.files), {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, AttributeError, EOFError) as error:
        raise Refusal(
            "invalid_input", f"{path} is no npz file of plain arrays (numpy.savez): {error}"
        ) from error
    if missing := [port.name for port in ports if port.name not in names]:
        raise Refusal(
            "invalid_input", f"{path} has no array {missing[0]}; it has {', '.join(sorted(names)) or 'none'}"
        )
    for port in ports:
        shape, value = port.axes, values[port.name]
        fits = len(shape) == value.ndim and all(
            isinstance(size, str) or size == own for size, own in zip(shape, value.shape, strict=True)
        )
        if not fits or value.dtype.kind not in "fiub":
            declared = ", ".join(map(str, shape))
            raise Refusal(
                "invalid_input",
                f"{path}: {port.name} is {value.dtype} {tuple(value.shape)}, and the file takes"
                f" {port.dtype} ({declared})",
            )
    return [values[port.name].astype(port.dtype) for port in ports]


def made_up(
    model: onnx.ModelProto, ports: list[Port], asked: Mapping[str, float]
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Returns example inputs, and how they came about in words: seeded normal values, for integers
    that index a table numbers of its rows, for others ones.
    """
    rows, random = tables(model), np.random.default_rng(0)
    sizes: dict[int | str, int] = {}
    for port in ports:
        for axis, name in enumerate(port.axes):
            sizes.setdefault(name, size_of(port, axis, asked))
    values, words = [], []
    for port in ports:
        shape = [sizes[axis] for axis in port.axes]
        if port.name in asked and not shape:
            value, kind = np.array(asked[port.name]), "as asked"
        elif port.dtype.kind == "f":
            value, kind = random.standard_normal(shape), "normal"
        elif port.name in rows:
            value, kind = random.integers(0, rows[port.name], shape), f"of {rows[port.name]} numbers"
        else:
            value, kind = np.ones(shape), "ones"
        values.append(np.asarray(value).astype(port.dtype))
        words.append(f"{port.name} {kind}")
    first = {port.axes[0] for port in ports if port.axes}
    guessed = [name for name in sizes if isinstance(name, str) and name not in asked and {name} != first]
    others = [f"{name}={sizes[name]}" for name in guessed]
    sized = f", with {', '.join(others)} (--arg {others[-1]} sets another)" if others else ""
    return values, (f"inputs are made up: {', '.join(words)}{sized}; real ones: --arg {INPUTS}=FILE.npz",)


def size_of(port: Port, axis: int, asked: Mapping[str, float]) -> int:
    """Returns the size of an axis that is free, or its own."""
    name = port.axes[axis]
    if isinstance(name, int):
        return name
    if name in asked:
        return max(1, int(asked[name]))
    if axis == 0:
        return ROWS
    image = len(port.axes) == 4 and (axis > 1 and port.axes[1] in CHANNELS)
    return IMAGE if image else OTHERS


def tables(model: onnx.ModelProto) -> dict[str, int]:
    """Returns how many rows the table has that an input indexes; none of inputs that index none.

    What only changes an index's shape or type on the way stands for it.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    source: dict[str, str] = {}
    rows: dict[str, int] = {}
    for node in model.graph.node:
        first = source.get(node.input[0], node.input[0]) if node.input else ""
        if node.op_type in ("Cast", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Flatten"):
            source[node.output[0]] = first
        elif node.op_type == "Gather" and node.input[0] in weights:
            axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
            index = source.get(node.input[1], node.input[1])
            size = int(weights[node.input[0]].dims[axis])
            rows[index] = min(size, rows.get(index, size))
    return rows
