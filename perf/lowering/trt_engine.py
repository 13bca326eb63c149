"""One adapter over `tensorrt` and `tensorrt_rtx`, whichever is installed: parse an ONNX file, build
an engine, read what the builder says of its layers.

Both are strongly typed: precision is in the graph. tensorrt_rtx builds on a machine without a GPU
for architectures by name (ComputeCapability); tensorrt's builder needs the GPU that the engine is
for. A builder's own words, at its most talkative, hold every layer of the engine with types and the
ONNX nodes behind it: so placement is known without loading the engine, which would need the GPU.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from ..terms.reasons import Reason, Refusal
from ..terms.result import Placement
from . import export

# The standard library and the one for RTX cards, in the order of preference.
MODULES = ("tensorrt", "tensorrt_rtx")
REMEDY = "pip install 'hotlap[tensorrt-rtx]', or NVIDIA's own tensorrt"
# Types as the two libraries spell them -> our precisions.
TYPES = {
    "Float": "fp32",
    "FP32": "fp32",
    "Half": "fp16",
    "FP16": "fp16",
    "BFloat16": "bf16",
    "BF16": "bf16",
    "Int8": "int8",
    "FP8": "fp8",
    "Int64": "int64",
    "Int32": "int32",
    "Bool": "bool",
}
# Layers that multiply: only they say in which precision the work is done (names of TensorRT's
# compiler; runtime_fusion is an attention or a chain with products).
COMPUTING = (
    "gemm",
    "correlation",
    "conv",
    "convolution",
    "deconvolution",
    "runtime_fusion",
    "fc_attention",
    "mha",
    "matmul",
    "CaskConvolution",
    "CaskGemm",
)
# A list of tensors, then a layer, in a builder's listing or an inspector's ONELINE form.
TENSORS = r"(?:\[\]|\[(.*?)\}\])"
LAYER = re.compile(
    rf"^Name: (.*?), LayerType: (\w+), Inputs: {TENSORS}, (?:Constants: {TENSORS}, )?Outputs: {TENSORS}",
    re.MULTILINE,
)
# The ONNX node that a layer stands for, in the layer's metadata.
ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
# `Datatype: Half`, or in older releases `Format/Datatype: Channel major FP16 format`.
DATATYPE = re.compile(
    r"Datatype: (?:[\w ]*? )?(Float|Half|BFloat16|Int8|FP8|Int64|Int32|Bool|FP32|FP16|BF16)\b"
)


def installed() -> str:
    """Returns the name of the module that is installed, or empty."""
    return next((name for name in MODULES if importlib.util.find_spec(name) is not None), "")


def library() -> Any:
    """Imports the library. Raises Refusal(dep_missing)."""
    name = installed()
    if not name:
        raise Refusal("dep_missing", f"neither tensorrt nor tensorrt_rtx is installed: {REMEDY}")
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        raise Refusal("dep_missing", f"{name} is installed and cannot be imported: {error}") from error


def version(trt: Any) -> str:
    """Returns name and version of the library."""
    return f"{trt.__name__} {trt.__version__}"


def architectures(trt: Any) -> dict[str, Any]:
    """Returns what the library can build for by name: sm_89 -> ComputeCapability.SM89.

    Empty for the standard TensorRT.
    """
    known = getattr(trt, "ComputeCapability", None)  # None has no attribute of such a name either
    return {f"sm_{name[2:]}": getattr(known, name) for name in dir(known) if re.fullmatch(r"SM\d+", name)}


class Log:
    """Everything that the library logs, in order. `logger` is what TensorRT takes."""

    def __init__(self, trt: Any) -> None:
        lines: list[tuple[str, str]] = []

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                lines.append((severity.name, message))

        self.lines, self.logger = lines, Logger()

    def error(self) -> str:
        """Returns the first error, shortened to what a person can use."""
        first = next(
            (message for severity, message in self.lines if severity in ("ERROR", "INTERNAL_ERROR")),
            "no message",
        )
        return " ".join(first.split())[:300]

    def layers(self) -> str:
        """Returns the builder's listing of an engine's layers, or empty."""
        return next((message for _, message in self.lines if message.startswith("Layers:")), "")


class Parsed(NamedTuple):
    """A parsed ONNX file: its network, which needs builder, parser and log alive.

    nodes: of the file.
    """

    network: Any
    builder: Any
    parser: Any
    log: Log
    nodes: int


def parse(trt: Any, model: Path, precision: str) -> Parsed:
    """Parses an ONNX file.

    Raises Refusal: unsupported_op with the operators and nodes that the library does not take,
    no_device where it has no builder.
    """
    log = Log(trt)
    builder = trt.Builder(log.logger)
    if not builder:
        raise Refusal("no_device", f"{version(trt)} has no builder here: {log.error()}")
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse_from_file(str(model)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        each = "; ".join(
            f"operator {error.node_operator()} (node {error.node_name()}): {words(error)}"
            for error in errors[:3]
        )
        raise Refusal("unsupported_op", f"{version(trt)} takes not all of the graph: {each or log.error()}")
    return Parsed(network, builder, parser, log, export.nodes(model))


def words(error: Any) -> str:
    """Returns an error of the parser: its code, and its description where it has one."""
    code = str(error.code()).rpartition(".")[2].lower().replace("_", " ")
    description = " ".join(error.desc().split())[:200]
    return code if description in ("", "false") else f"{code}, {description}"


def coverage(trt: Any, model: Path) -> tuple[int, list[str]]:
    """Returns into how many parts the parser would cut the graph, and what it does not take.

    The latter are operators, each with the name of its node.
    """
    log = Log(trt)
    builder = trt.Builder(log.logger)
    network = builder.create_network(0)  # the parser holds a bare pointer to it
    parser = trt.OnnxParser(network, log.logger)
    parser.supports_model_v2(model.read_bytes(), str(model))
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    refused = [f"{error.node_operator()} ({error.node_name()})" for error in errors]
    return int(parser.num_subgraphs), refused


def build(
    trt: Any, parsed: Parsed, architecture: str, profile: dict[str, tuple[tuple[int, ...], ...]], tf32: bool
) -> bytes:
    """Builds an engine for an architecture by name, with an empty one for the GPU that is here.

    Raises Refusal: unsupported_target, unsupported_precision, build_failed.
    """
    config = parsed.builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    (config.set_flag if tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
    known = architectures(trt)
    if architecture:
        if architecture not in known:
            able = (
                f"it builds for {', '.join(known)}"
                if known
                else "it builds only for the GPU that is in the machine"
            )
            raise Refusal("unsupported_target", f"{version(trt)} does not build for {architecture}: {able}")
        config.num_compute_capabilities = 1
        config.set_compute_capability(known[architecture], 0)
    elif known:
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.CURRENT, 0)
    shapes = parsed.builder.create_optimization_profile()
    for name, (smallest, best, largest) in profile.items():
        shapes.set_shape(name, smallest, best, largest)
    config.add_optimization_profile(shapes)
    engine = parsed.builder.build_serialized_network(parsed.network, config)
    if engine is None:
        message = parsed.log.error()
        if match := re.search(r"HW-specific datatypes: (\w+)", message):
            raise Refusal(
                "unsupported_precision",
                f"{version(trt)}: {architecture or 'this GPU'} has no {match[1]} in hardware",
            )
        raise Refusal(
            "build_failed", f"{version(trt)} built no engine for {architecture or 'this GPU'}: {message}"
        )
    return bytes(engine)


def profile(parsed: Parsed, batch: int, dynamic: bool) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Returns smallest, best and largest shape of each input.

    dynamic: from 1 to four times the batch, tuned for the batch; else the batch alone.
    """
    sizes = (1, batch, 4 * batch) if dynamic else (batch, batch, batch)
    inputs = [parsed.network.get_input(index) for index in range(parsed.network.num_inputs)]
    return {
        tensor.name: tuple(tuple(size if side == -1 else side for side in tensor.shape) for size in sizes)
        for tensor in inputs
    }


def placement(requested: str, layers: str, nodes: int) -> Placement:
    """Returns the precision of an engine's layers that multiply, and the kinds of all.

    layers: as the builder or inspector lists them. nodes: of the ONNX file.
    """
    listed = [
        (kind, types(inputs + constants), types(outputs))
        for _, kind, inputs, constants, outputs in LAYER.findall(layers)
    ]
    computing = [precision(requested, inputs) for kind, inputs, _ in listed if kind in COMPUTING]
    kinds = Counter(
        f"{kind} {'+'.join(inputs) or '-'} -> {'+'.join(outputs) or '-'}" for kind, inputs, outputs in listed
    )
    ran_on = Counter(computing) or Counter(precision(requested, inputs) for _, inputs, _ in listed)
    other = ran_on.total() - ran_on[requested]
    covered = len(set(ORIGIN.findall(layers)))
    counts = {"engines": 1, "nodes": len(listed), "nodes_other_precision": other}
    evidence = (
        f"{len(listed)} layers of the engine name {covered} of the graph's {nodes} ONNX nodes; the others"
        " were folded or fused away"
    )
    wrong = None
    if listed and ran_on[requested] < other:
        ran = ", ".join(f"{count} in {name}" for name, count in ran_on.items())
        wrong = Reason(
            "unsupported_precision",
            f"requested {requested}, but of {ran_on.total()} layers that multiply there would run {ran}",
        )
    return Placement(
        requested,
        dict(ran_on),
        counts,
        (evidence, *(f"{count} x {kind}" for kind, count in kinds.most_common())),
        wrong,
    )


def types(tensors: str) -> tuple[str, ...]:
    """Returns the types in a list of tensors, each once."""
    return tuple(sorted({TYPES.get(name, name) for name in DATATYPE.findall(tensors)}))


def precision(requested: str, inputs: tuple[str, ...]) -> str:
    """Returns the narrowest floating-point or int8 type among those that a layer takes.

    Scales beside fp16 weights are fp32. tf32 is a way to run fp32.
    """
    narrowest = next((name for name in ("fp8", "int8", "fp16", "bf16", "fp32") if name in inputs), "other")
    return "tf32" if requested == "tf32" and narrowest == "fp32" else narrowest
