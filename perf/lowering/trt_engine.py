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

MODULES = ("tensorrt", "tensorrt_rtx")
REMEDY = "pip install 'hotlap[tensorrt-rtx]', or NVIDIA's own tensorrt"
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
TENSORS = r"(?:\[\]|\[(.*?)\}\])"
LAYER = re.compile(
    rf"^Name: (.*?), LayerType: (\w+), Inputs: {TENSORS}, (?:Constants: {TENSORS}, )?Outputs: {TENSORS}",
    re.MULTILINE,
)
ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
# `Datatype: Half`, or in older releases `Format/Datatype: Channel major FP16 format`.
DATATYPE = re.compile(
    r"Datatype: (?:[\w ]*? )?(Float|Half|BFloat16|Int8|FP8|Int64|Int32|Bool|FP32|FP16|BF16)\b"
)


def installed() -> str:
    """The module's name, or empty."""
    return next((name for name in MODULES if importlib.util.find_spec(name) is not None), "")


def library() -> Any:
    """Raises Refusal(dep_missing)."""
    name = installed()
    if not name:
        raise Refusal("dep_missing", f"neither tensorrt nor tensorrt_rtx is installed: {REMEDY}")
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        raise Refusal("dep_missing", f"{name} is installed and cannot be imported: {error}") from error


def version(trt: Any) -> str:
    return f"{trt.__name__} {trt.__version__}"


def architectures(trt: Any) -> dict[str, Any]:
    """What it can build for by name: sm_89 -> ComputeCapability.SM89.

    Empty for the standard TensorRT.
    """
    known = getattr(trt, "ComputeCapability", None)
    return (
        {f"sm_{name[2:]}": getattr(known, name) for name in dir(known) if re.fullmatch(r"SM\d+", name)}
        if known is not None
        else {}
    )


class Log:
    """Everything the library says, in order. `logger` is what TensorRT takes."""

    def __init__(self, trt: Any) -> None:
        lines: list[tuple[str, str]] = []

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                lines.append((severity.name, message))

        self.lines, self.logger = lines, Logger()

    def error(self) -> str:
        """The first error, shortened to what a person can use."""
        found = next(
            (message for severity, message in self.lines if severity in ("ERROR", "INTERNAL_ERROR")),
            "no message",
        )
        return " ".join(found.split())[:300]

    def layers(self) -> str:
        return next((message for _, message in self.lines if message.startswith("Layers:")), "")


class Parsed(NamedTuple):
    """nodes: of the ONNX file. The network needs its builder, parser and log alive."""

    network: Any
    builder: Any
    parser: Any
    log: Log
    nodes: int


def parse(trt: Any, model: Path, precision: str) -> Parsed:
    """Raises Refusal: unsupported_op with the operator and node that the library does not take,
    build_failed where there is no builder.
    """
    log = Log(trt)
    builder = trt.Builder(log.logger)
    if not builder:
        raise Refusal("no_device", f"{version(trt)} has no builder here: {log.error()}")
    flags = (
        1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
        else 0
    )
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse_from_file(str(model)):
        refused = [parser.get_error(at) for at in range(parser.num_errors)]
        each = "; ".join(
            f"operator {one.node_operator()} (node {one.node_name()}): {words(one)}" for one in refused[:3]
        )
        raise Refusal("unsupported_op", f"{version(trt)} takes not all of the graph: {each or log.error()}")
    return Parsed(network, builder, parser, log, export.nodes(model))


def words(error: Any) -> str:
    code = str(error.code()).rpartition(".")[2].lower().replace("_", " ")
    return (
        code if error.desc().strip() in ("", "false") else f"{code}, {' '.join(error.desc().split())[:200]}"
    )


def coverage(trt: Any, model: Path) -> tuple[int, list[str]]:
    """Number of parts into which the parser would cut the graph, and the operators that it does not
    take.
    """
    log = Log(trt)
    builder = trt.Builder(log.logger)
    network = builder.create_network(0)  # the parser holds a bare pointer to it
    parser = trt.OnnxParser(network, log.logger)
    parser.supports_model_v2(model.read_bytes(), str(model))
    refused = [parser.get_error(at) for at in range(parser.num_errors)]
    return int(parser.num_subgraphs), [f"{one.node_operator()} ({one.node_name()})" for one in refused]


def build(
    trt: Any, parsed: Parsed, architecture: str, profile: dict[str, tuple[tuple[int, ...], ...]], tf32: bool
) -> bytes:
    """The engine, for an architecture by name or, with an empty one, for the GPU that is here.

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
        said = parsed.log.error()
        if found := re.search(r"HW-specific datatypes: (\w+)", said):
            raise Refusal(
                "unsupported_precision",
                f"{version(trt)}: {architecture or 'this GPU'} has no {found[1]} in hardware",
            )
        raise Refusal(
            "build_failed", f"{version(trt)} built no engine for {architecture or 'this GPU'}: {said}"
        )
    return bytes(engine)


def profile(parsed: Parsed, batch: int, dynamic: bool) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Input -> smallest, best and largest shape.

    dynamic: from 1 to four times the batch, tuned for the batch; else the batch alone.
    """
    sizes = (1, batch, 4 * batch) if dynamic else (batch, batch, batch)
    given = [parsed.network.get_input(at) for at in range(parsed.network.num_inputs)]
    return {
        one.name: tuple(tuple(size if side == -1 else side for side in one.shape) for size in sizes)
        for one in given
    }


def placement(requested: str, layers: str, nodes: int) -> Placement:
    """Of an engine's layers as its builder or inspector lists them: precision of those that
    multiply, kinds of all.
    """
    found = [
        (kind, types(given, constants), types(made, ""))
        for _, kind, given, constants, made in LAYER.findall(layers)
    ]
    computing = [precision(requested, given) for kind, given, _ in found if kind in COMPUTING]
    kinds = Counter(
        f"{kind} {'+'.join(given) or '-'} -> {'+'.join(made) or '-'}" for kind, given, made in found
    )
    ran_on = Counter(computing) or Counter(precision(requested, given) for _, given, _ in found)
    other = ran_on.total() - ran_on[requested]
    covered = len(set(ORIGIN.findall(layers)))
    counts = {"engines": 1, "nodes": len(found), "nodes_other_precision": other}
    evidence = (
        (
            f"{len(found)} layers of the engine name {covered} of the graph's {nodes} ONNX nodes; the others"
            " were folded or fused away"
        ),
    )
    wrong = None
    if found and ran_on[requested] < other:
        ran = ", ".join(f"{count} in {name}" for name, count in ran_on.items())
        wrong = Reason(
            "unsupported_precision",
            f"requested {requested}, but of {ran_on.total()} layers that multiply there would run {ran}",
        )
    return Placement(
        requested,
        dict(ran_on),
        counts,
        (*evidence, *(f"{count} x {kind}" for kind, count in kinds.most_common())),
        wrong,
    )


def types(given: str, constants: str) -> tuple[str, ...]:
    return tuple(sorted({TYPES.get(name, name) for name in DATATYPE.findall(given + constants)}))


def precision(requested: str, given: tuple[str, ...]) -> str:
    """The narrowest floating-point or int8 type among what a layer takes: scales beside fp16
    weights are fp32. tf32 is a way to run fp32.
    """
    found = next((name for name in ("fp8", "int8", "fp16", "bf16", "fp32") if name in given), "other")
    return "tf32" if requested == "tf32" and found == "fp32" else found
