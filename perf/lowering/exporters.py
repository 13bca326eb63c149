"""The ways from a module to an ONNX file, in the order in which they are tried.

dynamo is torch's own: it exports the program and keeps the free axes. traced is torch.onnx's older
exporter, which records one call: it takes models that the other refuses, and what it writes is for
the sizes of that call only.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch

from ..lookup import onnx_graph
from ..lookup.onnx_file import OnnxFile
from ..machine.memory import exhausted
from ..oracle import leaves
from ..oracle.recast import cast_floats
from ..terms.reasons import Refusal, full
from . import branches, free_axes

if TYPE_CHECKING:
    from ..terms.case import Workload

# torch.onnx's own default (torch 2.14); the first with Gelu as one operator. ONNX Runtime 1.31 and
# OpenVINO 2026 read it.
OPSET = 20
# The first whose convolutions and poolings take bfloat16 (onnx.ai/onnx/operators/onnx__Conv.html,
# version history).
OPSET_BF16 = 22
# The newest that the older exporter writes in every torch since 2.9.
OPSET_TRACED = 18
# The first version of the format in which weights need not be listed among the inputs
# (github.com/onnx/onnx, onnx.proto, IR_VERSION).
WEIGHTS_APART = 4
# Colours of a terminal.
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# Lines that a refusal shows.
MOST_PLACES = 3
# How exporters say what they do not have, and what to write instead.
REMEDIES = {
    "tuple of ints,but got FakeTensor": (
        "of packed sequences, let forward give all steps back (pad_packed_sequence), or run the layer on the"
        " padded batch"
    ),
}

Exporter = Callable[["Workload", str, Path], list[str]]


class Decides(Refusal):
    """Raised for a forward that decides by the values of its inputs: a file has one way."""

    def __init__(self, decisions: Sequence[branches.Decision]) -> None:
        places = ", ".join(str(decision) for decision in decisions[:MOST_PLACES])
        if (more := len(decisions) - MOST_PLACES) > 0:
            places += f" and {more} lines more"
        installed = (
            "; lines of an installed package are its authors' to change: export the part before them"
            if any(decision.installed for decision in decisions)
            else ""
        )
        super().__init__(
            "export_failed",
            f"forward decides by the values of its inputs at {places}, and a file has one way: use"
            f" torch.where or torch.cond there, or sizes that do not depend on values{installed}",
        )


def dynamo(workload: Workload, precision: str, path: Path) -> list[str]:
    """Exports by torch.export, with the free axes; returns nothing to note.

    bf16 is exported in fp32 and retyped: the exporter's optimiser (onnxscript 0.7.2) folds batch
    norm into bf16 convolutions with fp32 weights, which is no valid graph. Raises
    Refusal(export_failed).
    """
    results = output_names(workload)
    module, inputs = cast(workload, precision)
    shapes = free_axes.shapes(workload)
    try:
        with quietly(), without_fast_path():
            program = torch.onnx.export(
                free_axes.positional(module),
                inputs,
                dynamo=True,
                dynamic_shapes=(shapes,) if shapes else None,
                opset_version=OPSET_BF16 if precision == "bf16" else OPSET,
                optimize=True,
                verbose=False,
            )
        assert program is not None and program.exported_program is not None
        free_axes.unbounded(workload, program.exported_program)
        _anonymous(program)
        _rename(program, [*input_names(workload), *results])
        beside = size(module) > onnx_graph.LARGEST_FILE_BYTES
        if precision == "bf16":
            retyped = program.model_proto
            onnx_graph.retype(retyped, onnx.TensorProto.FLOAT, onnx.TensorProto.BFLOAT16)
            onnx.save(retyped, path, save_as_external_data=beside, location=f"{path.name}.data")
        else:
            program.save(str(path), external_data=beside)
        onnx.checker.check_model(str(path), full_check=True)
    except Refusal:
        raise
    except Exception as error:  # exporters run the model's own forward, which may raise anything
        if exhausted(error) or full(error) is not None:
            raise
        raise Refusal("export_failed", explained(error)) from error
    return []


def traced(workload: Workload, precision: str, path: Path) -> list[str]:
    """Exports by recording one call, with every size fixed; returns what to note of it.

    Raises Refusal(export_failed), Decides.
    """
    names, results = input_names(workload), output_names(workload)
    module, inputs = cast(workload, precision)
    inputs = tuple(value.clone() for value in workload.inputs) if precision == "fp32" else inputs
    decisions = branches.decisions(module, inputs)
    if ways := [decision for decision in decisions if not decision.harmless]:
        raise Decides(ways)
    try:
        with quietly(), without_fast_path(), torch.no_grad():
            torch.onnx.export(
                recordable(TensorsAlone(module), inputs),
                inputs,
                str(path),
                dynamo=False,
                opset_version=OPSET_TRACED,
                input_names=names,
                output_names=results,
                verbose=False,
            )
        _complete(path, names, inputs)
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # C++ raises what it likes here too
        if exhausted(error) or full(error) is not None:
            raise
        raise Refusal("export_failed", explained(error)) from error
    sizes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in zip(names, inputs, strict=True))
    reads = [f"{decision} reads values of the inputs, which the file does not" for decision in decisions]
    return [f"recorded from one call (torch.onnx.export, dynamo=False), for {sizes} only", *reads]


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keeps what exporters print, and their warnings: `decisions` tells those that count."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(action="ignore"),
    ):
        yield


@contextlib.contextmanager
def without_fast_path() -> Iterator[None]:
    """Lets attention layers run operator by operator: their fused operator is in no file."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def as_given(workload: Workload, precision: str, path: Path) -> list[str]:
    """Writes the ONNX file that the workload is, with its free axes under their names; returns what
    to note of it. Raises Refusal(invalid_input).
    """
    file = workload.module
    assert isinstance(file, OnnxFile)
    model = file.graph.model()
    ports, words = onnx_graph.inputs(model), dict[str, str]()
    for port, value, free in zip(ports, workload.inputs, workload.free, strict=True):
        for axis, dimension in enumerate(port.type.tensor_type.shape.dim):
            old = dimension.dim_param
            dimension.Clear()
            if axis in free:
                dimension.dim_param = free[axis]
                words[old] = free[axis]
            else:
                dimension.dim_value = value.shape[axis]
    for port in model.graph.output:
        for dimension in port.type.tensor_type.shape.dim:
            if dimension.dim_param in words:
                dimension.dim_param = words[dimension.dim_param]
    del model.graph.value_info[:], model.graph.input[:]
    model.graph.input.extend(ports)
    model.ir_version = max(model.ir_version, WEIGHTS_APART)
    kind = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}.get(precision)
    if kind is not None:
        onnx_graph.retype(model, onnx.TensorProto.FLOAT, kind)
    onnx_graph.write(model, path)
    return ["the file as it is" if kind is None else f"the file with {precision} in place of fp32"]


# In the order in which they are tried.
EXPORTERS: dict[str, Exporter] = {"dynamo": dynamo, "traced": traced}


def exporters_of(workload: Workload, precision: str) -> dict[str, Exporter]:
    """Returns the ways from a workload to a file of that precision; the older exporter has no bf16,
    and a file needs none.
    """
    if isinstance(workload.module, OnnxFile):
        return {"as given": as_given}
    return {"dynamo": dynamo} if precision == "bf16" else EXPORTERS


class TensorsAlone(torch.nn.Module):
    """A module that returns the tensors of another's outputs, whatever holds them."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module
        self.training = module.training

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(leaves.tensors(self.module(*inputs)))


def recordable(module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> torch.nn.Module:
    """Returns the module, or where TorchScript has compiled a part of it, all of it recorded with
    that part in it: the exporter does not step into such parts by itself (torch 2.14).
    """
    if not any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        return module
    recorded = torch.jit.trace(module, tuple(inputs), check_trace=False)  # type: ignore[no-untyped-call]
    frozen: torch.nn.Module = torch.jit.freeze(recorded)
    return frozen


def cast(workload: Workload, precision: str) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """Returns the module and its example inputs in the precision of the file; bf16's is fp32."""
    dtype = torch.float16 if precision == "fp16" else torch.float32
    inputs = free_axes.examples(workload)
    return cast_floats(workload.module, dtype), tuple(
        tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in inputs
    )


def input_names(workload: Workload) -> list[str]:
    return list(workload.names) or [f"in{index}" for index in range(len(workload.inputs))]


def output_names(workload: Workload) -> list[str]:
    """Returns what to call each tensor that a call returns, unlike any input."""
    with torch.inference_mode():
        outputs = workload.module(*workload.inputs)
    return leaves.identifiers(leaves.names(outputs), input_names(workload))


def size(module: torch.nn.Module) -> int:
    """Returns the bytes of the weights."""
    tensors = [value for value in module.state_dict().values() if isinstance(value, torch.Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _anonymous(program: torch.onnx.ONNXProgram) -> None:
    """Takes out what the exporter says of where a node comes from: stack traces with the paths of
    this machine. The hierarchy of modules goes with it.
    """
    graph = program.model.graph
    parts: list[Any] = [program.model, graph, *graph.inputs, *graph.outputs, *graph.initializers.values()]
    for node in graph.all_nodes():
        parts += [node, *node.outputs]
    for part in parts:
        part.metadata_props.clear()


def _rename(program: torch.onnx.ONNXProgram, names: Sequence[str]) -> None:
    """Gives the inputs and outputs of a graph these names, and another to what has one of them;
    weights are called as in the module, not as in what stands around it.
    """
    graph = program.model.graph
    for value in list(graph.initializers.values()):
        value.name = (value.name or "").removeprefix("module.")
    ports = [*graph.inputs, *graph.outputs]
    inner = [value for node in graph.all_nodes() for value in node.outputs]
    for value in [*inner, *graph.initializers.values()]:
        if value.name in names:
            value.name = f"{value.name}.inner"
    for value, name in zip(ports, names, strict=True):
        value.name = name


def _complete(path: Path, names: Sequence[str], inputs: Sequence[torch.Tensor]) -> None:
    """Declares the inputs that the graph does not use, which the exporter leaves out, takes out
    what it says of where a node comes from, and puts weights into one file beside the graph: above
    2 GB the exporter writes a file for each.
    """
    model = onnx.load(path, load_external_data=False)
    declared = {value.name: value for value in model.graph.input}
    kinds = {torch.float32: onnx.TensorProto.FLOAT, torch.float16: onnx.TensorProto.FLOAT16}
    del model.graph.input[:]
    for name, tensor in zip(names, inputs, strict=True):
        kind = kinds.get(tensor.dtype) or onnx.helper.np_dtype_to_tensor_dtype(tensor.numpy().dtype)
        unused = onnx.helper.make_tensor_value_info(name, kind, list(tensor.shape))
        model.graph.input.append(declared.get(name, unused))
    for node in model.graph.node:
        node.doc_string = ""
    weights = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    onnx.load_external_data_for_model(model, str(path.parent))
    onnx.save(model, path, save_as_external_data=bool(weights), location=f"{path.name}.data")
    for name in weights:
        (path.parent / name).unlink()


def explained(error: BaseException) -> str:
    """Returns the operator, where one is named, the first line of the innermost message, the line
    of the model that it comes from and what to write instead, where that is known.
    """
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(inner)
    texts = [ANSI.sub("", str(link)) for link in chain]
    named = [
        match[1]
        for text in texts
        if (match := re.search(r"(?:OpOverload\(op='|torch\.ops\.|operator ')([\w:]+(?:\.\w+)?)", text))
    ]
    line = next((line for line in texts[-1].splitlines() if line.strip()), type(chain[-1]).__name__)
    place = branches.place_of(error)
    remedy = next((f"; {words}" for name, words in REMEDIES.items() if name in line), "")
    return (f"operator {named[-1]}: " if named else "") + line + (f" ({place})" if place else "") + remedy
