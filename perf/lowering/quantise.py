"""An ONNX file in int8: quantise and dequantise around products and convolutions, with ranges from
real inputs (ONNX Runtime's static QDQ quantisation).

Weights are signed and symmetric with a scale for each output channel. Which activations suit
depends on who runs the file: see Style. After that the file is compared with the one it came from
on inputs that were kept out of the calibration, its rounded values multiplied in fp32, so that the
8-bit products of the CPU that builds decide nothing; where its outputs are further off than LIMIT,
the nodes are quantised one by one, and those that alone do most harm stay in fp32, more and more of
them, until it holds. What was measured and left out stands in the outcome.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..terms.reasons import Refusal
from .calibration import LIMIT, Calibration, cosine

if TYPE_CHECKING:
    import onnx

    from ..terms.contract import Arrays

# Nodes are measured alone on this many of the batches that judge, the first ones.
PROBES = 2
# Seconds after which no further node is measured alone: a build must end.
SEARCH_S = 60.0
# Operators that multiply, and so compute in int8 if both their sides are int8.
CONVOLUTIONS = ("Conv", "ConvTranspose")
PRODUCTS = ("Gemm", "MatMul")
# What merely moves, adds or rectifies int8 stays int8 between two of them.
PASSING = (
    "Relu",
    "Clip",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Add",
    "Mul",
    "Concat",
    "Reshape",
    "Transpose",
    "Flatten",
)
# What has int8 weights where activations are rounded in each call, and what it becomes.
DYNAMIC = ("MatMul", "Gemm", "LSTM", "Attention")
INTEGER = ("MatMulInteger", "DynamicQuantizeLSTM", "QAttention")
# The first version of the standard operators whose DequantizeLinear has a scale for each channel
# (onnx.ai/onnx/operators/onnx__DequantizeLinear.html, version history).
OPSET_CHANNELS = 13
# What ONNX Runtime's quantiser raises for graphs that it cannot take.
FAILURES = (ValueError, TypeError, KeyError, RuntimeError)


class Style(NamedTuple):
    """What suits who runs the file.

    signed: activations -128 to 127 around 0, as TensorRT demands; else 0 to 255 with a zero point.
    reduced: weights in 7 bits, for CPUs whose 8-bit products saturate in 16 bits (x86
    without VNNI). passing: also quantise what only passes int8 on, except in transformers, whose
    sums of many layers do not bear it (vit of models/nets: cosine 0.978 with, 0.998 without).
    convolutions: False where who runs the file has none in int8.
    """

    signed: bool
    reduced: bool
    passing: bool
    convolutions: bool = True

    @property
    def computing(self) -> tuple[str, ...]:
        """The operators that are quantised because they compute in int8."""
        return (*CONVOLUTIONS, *PRODUCTS) if self.convolutions else PRODUCTS


class Outcome(NamedTuple):
    """What was quantised and how near it is.

    quantised: number of products and convolutions. cosine: of the file's outputs to fp32's, on
    inputs that gave no ranges. before: the same with nothing left in fp32. kept: nodes left in
    fp32, the most harmful first. source: where the ranges come from.
    """

    quantised: int
    cosine: float
    before: float
    kept: tuple[str, ...]
    source: str

    def __str__(self) -> str:
        left = ""
        if self.kept:
            names = ", ".join(self.kept)
            left = f"; left in fp32, by the harm each does alone: {names} (without that {self.before:.4f})"
        return (
            f"int8: {self.quantised} products and convolutions quantised, ranges from {self.source}; cosine"
            f" to fp32 {self.cosine:.4f} on inputs kept out of that{left}"
        )


def whole(source: Path) -> onnx.ModelProto:
    """Returns the model of a file. Raises Refusal(build_failed) where its weights lie beside it:
    the quantiser and its sessions take a model as one message.
    """
    import onnx

    if any(source.parent.glob(f"{source.name}.*")):
        raise Refusal(
            "build_failed",
            "int8: ONNX Runtime's quantiser takes a model as one message of protobuf, which has at most"
            " 2 GiB, and the weights of this one lie beside it; leave int8 out",
        )
    return onnx.load(source)


def dynamically(source: Path, target: Path, reduced: bool) -> str:
    """Quantises the weights of an ONNX file into another, whose activations are rounded in each
    call to the range that they have there: no calibration, and right for transformers and LSTMs,
    whose ranges change from call to call. Returns what was done, in words.

    reduced: as in Style. Raises Refusal: unsupported_op where there is nothing to quantise,
    build_failed with ONNX Runtime's words.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = whole(source)
    del model.graph.value_info[:]  # the quantiser turns weights round and infers shapes anew
    try:
        quantize_dynamic(
            model,
            target,
            op_types_to_quantize=[*DYNAMIC],
            per_channel=True,
            reduce_range=reduced,
            weight_type=QuantType.QInt8,
        )
    except (*FAILURES, onnx.shape_inference.InferenceError) as error:
        raise Refusal("build_failed", f"ONNX Runtime's quantiser: {error}") from error
    nodes = onnx.load(target, load_external_data=False).graph.node
    counts = Counter(node.op_type for node in nodes if node.op_type in INTEGER)
    if not counts:
        raise Refusal(
            "unsupported_op",
            f"int8:dynamic quantises the weights of {', '.join(DYNAMIC)}, and the file has none",
        )
    names = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    return f"int8: weights alone, activations rounded in each call: {names}"


def quantise(source: Path, target: Path, ranges: Calibration, style: Style) -> Outcome:
    """Quantises an ONNX file into another.

    Raises Refusal: unsupported_op where there is nothing to quantise, build_failed with ONNX
    Runtime's words.
    """
    import onnx

    fitted, held, _ = ranges.split()
    model = onnx.shape_inference.infer_shapes(with_scales_by_channel(whole(source)))
    nodes = computing(model, style.computing)
    if not nodes:
        raise Refusal(
            "unsupported_op",
            f"int8: the graph has none of {', '.join(style.computing)} with a constant weight, so nothing"
            " would run in int8",
        )
    try:
        work = Quantiser(model, source, fitted, held, style)
        best, kept = work.quantised(nodes), list[str]()
        before = near = work.cosine(best, held)
        if near < LIMIT:
            harmful = work.harmful(nodes)
            for count in doubling(len(harmful)):
                tried = work.quantised([name for name in nodes if name not in harmful[:count]])
                if (reached := work.cosine(tried, held)) > near:
                    best, near, kept = tried, reached, harmful[:count]
                if near >= LIMIT:
                    break
    except FAILURES as error:
        raise Refusal(
            "build_failed", f"int8: ONNX Runtime's quantiser: {type(error).__name__}: {error}"
        ) from error
    onnx.save(best, target)
    return Outcome(len(nodes) - len(kept), near, before, tuple(kept), ranges.source)


def with_scales_by_channel(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model in a version of the standard operators that knows a scale for each channel:
    files from elsewhere have older ones. Raises Refusal(build_failed) where it has no such version.
    """
    import onnx

    version = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if version >= OPSET_CHANNELS:
        return model
    try:
        return onnx.version_converter.convert_version(model, OPSET_CHANNELS)
    except RuntimeError as error:
        raise Refusal(
            "build_failed",
            f"int8 needs opset {OPSET_CHANNELS}, and onnx cannot raise the file's {version}: {error}",
        ) from error


def computing(model: onnx.ModelProto, kinds: Sequence[str]) -> list[str]:
    """Returns the names of the nodes that multiply an activation by a constant weight.

    The weight may come through a transposition, a cast or a copy.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Constant", "Transpose", "Identity", "Cast") and all(
            name in constants for name in node.input
        ):
            constants |= set(node.output)
    return [
        node.name
        for node in model.graph.node
        if node.op_type in kinds and len(node.input) > 1 and node.input[1] in constants
    ]


def doubling(most: int) -> Iterator[int]:
    """Yields 1, 2, 4 and so on below `most`."""
    count = 1
    while count < most:
        yield count
        count *= 2


class Quantiser:
    """The ranges of one model, taken once, and models made with them."""

    def __init__(
        self,
        model: onnx.ModelProto,
        source: Path,
        fitted: Sequence[Arrays],
        held: Sequence[Arrays],
        style: Style,
    ) -> None:
        self.model, self.source, self.held, self.style = model, source, held, style
        self.names = [value.name for value in model.graph.input]
        self.passing = (
            list(PASSING)
            if style.passing and not any(node.op_type == "Softmax" for node in model.graph.node)
            else []
        )
        self.kinds = [*style.computing, *self.passing]
        self._loaded: onnx.ModelProto | None = None
        self._session: Any = None
        self.ranges = self._ranges(fitted)
        self.exact = [self._run(model, batch) for batch in held]

    def _ranges(self, fitted: Sequence[Arrays]) -> Any:
        """Returns the smallest and largest value of each tensor over the batches."""
        from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

        names, batches = self.names, iter(fitted)

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def get_next(self) -> Any:
                batch = next(batches, None)
                return None if batch is None else dict(zip(names, batch, strict=True))

        with tempfile.TemporaryDirectory() as folder:
            extra = {"symmetric": self.style.signed}
            augmented = str(Path(folder) / "augmented.onnx")
            calibrator = create_calibrator(
                self.source, self.kinds, augmented, CalibrationMethod.MinMax, extra_options=extra
            )
            calibrator.collect_data(Reader())
            return calibrator.compute_data()

    def quantised(self, nodes: Sequence[str]) -> onnx.ModelProto:
        """Returns the model with these products and convolutions in int8.

        What passes int8 on between them is in int8 too.
        """
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        between = (
            [node.name for node in self.model.graph.node if node.op_type in self.passing]
            if len(nodes) > 1
            else []
        )
        activations = QuantType.QInt8 if self.style.signed else QuantType.QUInt8
        # A file for TensorRT has no quantised bias: its layers take theirs in floating point.
        extra = {
            "ActivationSymmetric": self.style.signed,
            "WeightSymmetric": True,
            "QuantizeBias": not self.style.signed,
        }
        quantiser = QDQQuantizer(
            copy.deepcopy(self.model),
            True,
            self.style.reduced,
            QuantType.QInt8,
            activations,
            self.ranges,
            [*nodes, *between],
            [],
            self.kinds,
            extra,
        )
        quantiser.quantize_model()
        model: onnx.ModelProto = quantiser.model.model
        return model

    def harmful(self, nodes: Sequence[str]) -> list[str]:
        """Returns the nodes that were measured in time, the one that does most harm alone first."""
        deadline = time.monotonic() + SEARCH_S
        cosines: dict[str, float] = {}
        for name in spread(nodes):
            if time.monotonic() > deadline:
                break
            cosines[name] = self.cosine(self.quantised([name]), self.held[:PROBES])
        return sorted(cosines, key=lambda name: cosines[name])

    def cosine(self, model: onnx.ModelProto, batches: Sequence[Arrays]) -> float:
        """Returns the smallest cosine to fp32 over outputs, each of all batches together."""
        return cosine(self.exact[: len(batches)], [self._run(model, batch) for batch in batches])

    def _run(self, model: onnx.ModelProto, batch: Arrays) -> Arrays:
        import onnxruntime as ort

        if self._loaded is not model:
            options = ort.SessionOptions()
            options.log_severity_level = 4
            # Quantise and dequantise stay what they are, beside products in fp32. Merged to 8-bit
            # products they saturate in 16 bits on an x86 CPU without VNNI, and not on a GPU.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            self._loaded = model
            self._session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        return tuple(self._session.run(None, dict(zip(self.names, batch, strict=True))))


def spread(nodes: Sequence[str]) -> list[str]:
    """Returns the nodes in another order: first and last, then the middle, and so on.

    If time runs out, all of the network was looked at, not its beginning.
    """
    order, step = [0, len(nodes) - 1], len(nodes)
    while step > 1:
        step = (step + 1) // 2
        order += range(0, len(nodes), step)
    return [nodes[index] for index in dict.fromkeys(order)]
