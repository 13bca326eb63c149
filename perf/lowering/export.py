"""From a Workload to an ONNX file. onnxruntime, openvino and tensorrt share it: a workload is
exported once for each precision (int8 starts from fp32's).

The export lies in one folder beside the cases' own, so that folder must belong to one run: it is
found by the workload's name.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..terms import files
from ..terms.case import Case, Workload
from ..terms.reasons import Refusal

if TYPE_CHECKING:
    import onnx
    import torch

    from ..terms.contract import Arrays

# torch.onnx's own default (torch 2.14); the first with Gelu as one operator. ONNX Runtime 1.31 and
# OpenVINO 2026 read it.
OPSET = 20
# The first whose convolutions and poolings take bfloat16 (onnx.ai/onnx/operators/onnx__Conv.html,
# version history).
OPSET_BF16 = 22
# The name of the dimension that may vary.
BATCH = "batch"
# protobuf refuses messages of 2 GiB (protobuf.dev/programming-guides/encoding, "Message
# Structure"); the graph needs some room.
LARGEST_FILE_BYTES = 1_900_000_000


class Exported(NamedTuple):
    """An ONNX file.

    folder: holds model.onnx and, above 2 GB, its weights beside it. seconds: what the export took
    when it was made.
    """

    folder: Path
    seconds: float


def export(workload: Workload, case: Case, root: Path) -> Exported:
    """Exports into root, or takes what another case of the same workload and precision left.

    Raises Refusal(export_failed) with the operator's name where it is known.
    """
    precision = "fp32" if case.precision in ("tf32", "int8") else case.precision
    folder = root / f"onnx-{case.workload}-{precision}"
    if not folder.exists():
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=root))
        try:
            start = time.perf_counter()
            _write(workload, precision, part / "model.onnx")
            (part / "export.json").write_text(json.dumps({"export": time.perf_counter() - start}))
            with contextlib.suppress(FileExistsError):  # another process was faster; its export is as good
                files.appear(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return Exported(folder, json.loads((folder / "export.json").read_bytes())["export"])


def place(exported: Exported, folder: Path) -> None:
    """Puts the exported files into a case's folder: hard links where the file system can."""
    for file in exported.folder.glob("model.onnx*"):
        try:
            os.link(file, folder / file.name)
        except OSError:
            shutil.copy2(file, folder / file.name)


def write_ledger(exported: Exported, folder: Path) -> None:
    """Writes what the export took when it was made, which may have been for another case.

    The harness prefers ledger.json to the phases that it timed.
    """
    (folder / "ledger.json").write_text(json.dumps({"export": exported.seconds}))


def opset(model: Path) -> int:
    """Returns the version of the standard operators that a file has."""
    import onnx

    return next(
        int(entry.version)
        for entry in onnx.load(model, load_external_data=False).opset_import
        if entry.domain in ("", "ai.onnx")
    )


def nodes(model: Path) -> int:
    """Returns how many nodes the graph of a file has."""
    import onnx

    return len(onnx.load(model, load_external_data=False).graph.node)


def raised(model: Path) -> bytes:
    """Returns a bf16 graph, serialised, with fp32 in place of bf16 everywhere.

    It is the same function but for roundings between its nodes.
    """
    import onnx

    loaded = onnx.load(model)
    _retype(loaded, onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT)
    return bytes(loaded.SerializeToString())


def on_cpu(model: Path, batch: int) -> Callable[[Arrays], Arrays]:
    """Returns a function that runs the file by ONNX Runtime's CPU provider, unoptimised.

    The provider has no bf16: such a graph is raised to fp32, its weights stay rounded. Raises
    Refusal(build_failed).
    """
    import numpy as np
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_free_dimension_override_by_name(BATCH, batch)
    bf16 = any(
        tensor.data_type == onnx.TensorProto.BFLOAT16
        for tensor in onnx.load(model, load_external_data=False).graph.initializer
    )
    try:
        session = ort.InferenceSession(
            raised(model) if bf16 else str(model), options, ["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise Refusal(
            "build_failed", f"ONNX Runtime {ort.__version__} does not load the exported graph: {error}"
        ) from error
    kinds = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
    ports = [
        (port.name, kinds.get(port.type, port.type.removeprefix("tensor(").removesuffix(")")))
        for port in session.get_inputs()
    ]

    def run(arrays: Arrays) -> Arrays:
        feed = {name: np.asarray(array, kind) for (name, kind), array in zip(ports, arrays, strict=True)}
        outputs = session.run(None, feed)
        return tuple(output.astype("float32") for output in outputs)

    return run


def _retype(model: onnx.ModelProto, old: int, new: int) -> None:
    """Changes every tensor, cast and declaration of one floating-point type to another.

    Factors of Resize are fp32 by the standard and stay.
    """
    import onnx

    fixed = {name for node in model.graph.node if node.op_type == "Resize" for name in node.input[1:3]}
    constants = [
        node.attribute[0].t
        for node in model.graph.node
        if node.op_type in ("Constant", "ConstantOfShape") and node.attribute and node.output[0] not in fixed
    ]
    kind = onnx.helper.tensor_dtype_to_np_dtype(new)
    weights = [tensor for tensor in model.graph.initializer if tensor.name not in fixed]
    for tensor in [*weights, *constants]:
        if tensor.data_type == old:
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(kind), tensor.name)
            )
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == old:
                attribute.i = new
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        if value.type.tensor_type.elem_type == old and value.name not in fixed:
            value.type.tensor_type.elem_type = new


def _write(workload: Workload, precision: str, path: Path) -> None:
    """Exports a workload into a file. Raises Refusal(export_failed).

    Where the batch may have any size the example has 2 rows at least: torch.export takes a
    dimension of size 1 for a constant.

    bf16 is exported in fp32 and retyped: the exporter's optimiser (onnxscript 0.7.2) folds batch
    norm into bf16 convolutions with fp32 weights, which is no valid graph.
    """
    import onnx
    import torch
    from onnx_ir.passes import PassError

    dtype = torch.float16 if precision == "fp16" else torch.float32
    module = workload.module.to(dtype)
    inputs = tuple(tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in workload.inputs)
    if workload.dynamic and len(inputs[0]) == 1:
        inputs = tuple(torch.cat((tensor, tensor)) for tensor in inputs)
    shapes = tuple({0: torch.export.Dim(BATCH)} for _ in inputs) if workload.dynamic else None
    outputs = _tensors_returned(module, inputs)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            program = torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                dynamic_shapes=shapes,
                opset_version=OPSET_BF16 if precision == "bf16" else OPSET,
                optimize=True,
                verbose=False,
                input_names=[f"in{i}" for i in range(len(inputs))],
                output_names=[f"out{i}" for i in range(outputs)],
            )
        assert program is not None
        _anonymous(program)
        weights = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
        beside = weights > LARGEST_FILE_BYTES
        if precision == "bf16":
            retyped = program.model_proto
            _retype(retyped, onnx.TensorProto.FLOAT, onnx.TensorProto.BFLOAT16)
            onnx.save(retyped, path, save_as_external_data=beside, location=f"{path.name}.data")
        else:
            program.save(str(path), external_data=beside)
        onnx.checker.check_model(str(path), full_check=True)
    except (
        torch.onnx.OnnxExporterError,
        PassError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        raise Refusal("export_failed", _explain(error)) from error


def _tensors_returned(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> int:
    """Returns how many tensors a call of the module returns, whatever holds them."""
    import torch

    with torch.inference_mode():
        leaves = torch.utils._pytree.tree_leaves(module(*inputs))
    return sum(isinstance(leaf, torch.Tensor) for leaf in leaves)


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


def _explain(error: BaseException) -> str:
    """Returns the operator, where one is named, and the first line of the innermost message."""
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(inner)
    texts = [str(link) for link in chain]
    named = [
        match[1]
        for text in texts
        if (match := re.search(r"(?:OpOverload\(op='|torch\.ops\.)(\w+\.\w+)", text))
    ]
    line = next((line for line in texts[-1].splitlines() if line.strip()), type(chain[-1]).__name__)
    return (f"operator {named[-1]}: " if named else "") + line
