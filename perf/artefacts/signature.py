"""Names, types, shapes and free axes of a model's inputs and outputs: from its file where that says
them, else as the harness feeds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from ..oracle.arrays import named
from ..terms.case import BATCH
from ..terms.work import Subject
from .manifest import Signature, Tensor

# Element types of OpenVINO's IR (its operation set documentation) -> numpy's names.
ELEMENTS = {
    "f64": "float64",
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "i64": "int64",
    "i32": "int32",
    "i8": "int8",
    "u8": "uint8",
    "boolean": "bool",
}


def of_reference(real: Path, free: Sequence[Mapping[int, str]], subject: Subject) -> Signature:
    """The signature as the harness feeds the model: in0.. and out0.. of real.npz
    (oracle/reference.py), without the first axis of batches. free: axes of each input that may have
    any size, with their names.
    """
    import numpy as np

    from ..oracle import leaves

    with np.load(real, allow_pickle=False) as stored:
        inputs = [(value.dtype.name, value.shape[1:]) for value in named(stored, "in")]
        outputs = [
            (value.dtype.name if value.dtype.kind in "iub" else "float32", value.shape[1:])
            for value in named(stored, "ref")
        ]
    names = subject.inputs or [f"in{index}" for index in range(len(inputs))]
    batch = {"0": BATCH} if BATCH in [name for axes in free for name in axes.values()] else {}
    return Signature(
        tuple(
            Tensor(name, dtype, shape, {str(axis): word for axis, word in axes.items()})
            for name, (dtype, shape), axes in zip(names, inputs, free, strict=True)
        ),
        tuple(
            Tensor(name, dtype, shape, batch if shape else {})
            for name, (dtype, shape) in zip(leaves.identifiers(subject.outputs, names), outputs, strict=True)
        ),
    )


def of_files(folder: Path, fed: Signature, fixed: bool = False) -> Signature:
    """What the model file says, in its own order; `fed` where there is none that says it, and for
    the sizes of free axes. fixed: what was built from it has none.
    """
    signature = fed
    if (folder / "model.onnx").is_file():
        signature = _of_onnx(folder / "model.onnx", fed)
    elif (folder / "model.xml").is_file():
        signature = _of_openvino(folder / "model.xml", fed)
    if (len(signature.inputs), len(signature.outputs)) != (len(fed.inputs), len(fed.outputs)):
        signature = fed
    return Signature(_fixed(signature.inputs), _fixed(signature.outputs)) if fixed else signature


def _fixed(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The tensors without free axes."""
    return tuple(msgspec.structs.replace(tensor, dynamic={}) for tensor in tensors)


def _of_onnx(path: Path, fed: Signature) -> Signature:
    import onnx

    def tensors(values: Sequence[onnx.ValueInfoProto], like: Sequence[Tensor]) -> tuple[Tensor, ...]:
        described = []
        for value, known in zip(values, like, strict=False):
            kind = value.type.tensor_type
            axes = [dim.dim_param or dim.dim_value for dim in kind.shape.dim]
            shape = tuple(
                size if isinstance(size, int) else known.shape[axis] for axis, size in enumerate(axes)
            )
            free = {str(axis): size for axis, size in enumerate(axes) if isinstance(size, str)}
            described.append(
                Tensor(value.name, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name, shape, free)
            )
        return tuple(described)

    graph = onnx.load(path, load_external_data=False).graph
    return Signature(tensors(graph.input, fed.inputs), tensors(graph.output, fed.outputs))


def _of_openvino(path: Path, fed: Signature) -> Signature:
    """The batch is fixed in the file (openvino.py)."""
    from xml.etree import ElementTree

    layers = ElementTree.parse(path).getroot().findall("./layers/layer")
    parameters = [
        (layer.get("name", ""), layer.find("data")) for layer in layers if layer.get("type") == "Parameter"
    ]
    answered = [layer.find("./input/port") for layer in layers if layer.get("type") == "Result"]
    inputs = tuple(
        Tensor(name, ELEMENTS.get(data.get("element_type", ""), known.dtype), known.shape)
        for (name, data), known in zip(parameters, fed.inputs, strict=False) if data is not None
    )  # fmt: skip
    outputs = tuple(
        Tensor(
            known.name,
            ELEMENTS.get(port.get("precision", "").lower().replace("fp", "f"), known.dtype),
            known.shape,
        )
        for port, known in zip(answered, fed.outputs, strict=False)
        if port is not None
    )
    return Signature(inputs, outputs)
