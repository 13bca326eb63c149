"""int8 by NNCF: post-training quantisation of an OpenVINO model, and which operations stay in fp32
where 8 bits cost too much.

For the worker that builds; what loads the model needs OpenVINO alone. NNCF has its ranges from most
of the calibration batches and is judged on the others. Where outputs are too far from fp32's, it
gets its other preset, then the operations that add most error stay in fp32: twice as many at each
try, so that few tries reach far.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ..machine import cpu
from ..terms.contract import Arrays
from ..terms.reasons import Refusal
from .calibration import LIMIT, Calibration, cosine
from .ov_model import compiled_by

REMEDY = "pip install 'hotlap[openvino]'"
# Tries after the first one: the other preset, then 1, 2, 4 and 8 operations left in fp32.
TRIES = 5
# No try starts later than this many seconds after the first: a build must end.
MOST_S = 120.0
# NNCF's own choice first (quantize_model.py), by whether the model has attention. performance:
# symmetric activations, mixed: asymmetric ones.
PRESETS = {False: ("performance", "mixed"), True: ("mixed", "performance")}
# Operations that a sentence names before it says how many more there are.
NAMED = 8

# Operations of a model that NNCF quantises because they multiply.
OPERATIONS = (
    "Convolution",
    "GroupConvolution",
    "ConvolutionBackpropData",
    "GroupConvolutionBackpropData",
    "MatMul",
)
# What NNCF calls an empty dataset where a model has branches: it takes ranges for each.
UNTAKEN = "the model has an If with a branch that no calibration input takes, so it has no ranges"
# The same as layers of a compiled graph (docs.openvino.ai, CPU device, layer types).
LAYERS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul", "ScaledDotProductAttention")
# OpenVINO's names of 8-bit precisions.
BYTES = ("i8", "u8")
# What OpenVINO's low precision transformations append to the name of a product of bytes.
RESCALED = "/DequantizationMultiply"
# Operations between a softmax and its product that change no value, and the choice by which torch's
# exporter puts zeros where a mask leaves nothing to attend to.
BETWEEN = ("Reshape", "Transpose", "Convert", "Squeeze", "Unsqueeze", "Select")


class Layer(NamedTuple):
    """One layer of a compiled graph.

    names: the operations of the model that it stands for.
    """

    kind: str
    precision: str
    names: tuple[str, ...]


class Quantised(NamedTuple):
    """A quantised model, and what was done to it, for the reader of a result."""

    model: Any
    evidence: tuple[str, ...]


class Try(NamedTuple):
    """A quantised model and how near it is.

    cosine: to the fp32 outputs. preset: NNCF's. kept: operations left in fp32.
    """

    model: Any
    cosine: float
    preset: str
    kept: Sequence[str]


def quantise(ov: Any, model: Any, ranges: Calibration) -> Quantised:
    """Quantises an OpenVINO model, leaving in fp32 what 8 bits cost too much.

    ov: the module openvino. Raises Refusal(build_failed) with NNCF's message.
    """
    start = time.perf_counter()
    used, held, apart = ranges.split()
    wanted = [_run(_compiled(ov, model), batch) for batch in held]

    lost: list[str] = []

    def attempt(preset: str, kept: Sequence[str] = ()) -> Try:
        try:
            quantised = _quantise(model, used, preset, [*kept, *lost])
        except KeyError as error:  # NNCF 3.4 does not find a table again: `number name` of its graph
            name = str(error.args[0]).partition(" ")[2]
            if not name or name in lost:
                raise Refusal("build_failed", f"NNCF {_library().__version__}: KeyError: {error}") from error
            lost.append(name)
            return attempt(preset, kept)
        compiled = _compiled(ov, quantised)
        return Try(quantised, cosine(wanted, [_run(compiled, batch) for batch in held]), preset, kept)

    tried = [attempt(PRESETS[attends(model)][0])]
    for number in range(TRIES):
        best = max(tried, key=lambda attempted: attempted.cosine)
        if best.cosine >= LIMIT or time.perf_counter() - start > MOST_S:
            break
        if number == 0:
            tried.append(attempt(PRESETS[attends(model)][1]))
            continue
        if number == 1:
            order = by_error(ov, model, best.model, held[0])
        kept = order[: min(2 ** (number - 1), len(order) // 2)]
        if kept and len(kept) > len(tried[-1].kept):
            tried.append(attempt(best.preset, kept))
    best = max(tried, key=lambda attempted: attempted.cosine)
    evidence = _evidence(tried, ranges, len(used), len(held) if apart else 0)
    left = [f"left in fp32, since NNCF does not find them again: {named(lost)}"] if lost else []
    return Quantised(best.model, (*evidence, *left))


def _evidence(tried: Sequence[Try], ranges: Calibration, used: int, held: int) -> Iterator[str]:
    """Says what was tried and how near it came.

    used: batches that gave ranges. held: other batches that judged, 0 where there were none.
    """
    first, best = tried[0], max(tried, key=lambda attempted: attempted.cosine)
    kind = ", model type transformer" if first.preset == PRESETS[True][0] else ""
    bits = "" if cpu.eight_bit_products() else ", weights in 7 bits"
    yield (
        f"NNCF {_library().__version__}: ranges from {used} of {len(ranges.batches)} batches of"
        f" {ranges.source}, preset {best.preset}{kind}{bits}"
    )
    judged = (
        f"{held} batches held back" if held else "the batch of the calibration itself, there being no other"
    )
    yield f"cosine to fp32 {first.cosine:.6f} on {judged}"
    if len(tried) > 1:
        changed = f"preset {best.preset}" + (
            f", {len(best.kept)} operations kept out: {named(best.kept)}" if best.kept else ""
        )
        yield f"below {LIMIT}; best of {len(tried)} tries {best.cosine:.6f}: {changed}"
    if best.cosine < LIMIT:
        yield f"the cosine stays below {LIMIT}; the check of outputs decides"


def by_error(ov: Any, model: Any, quantised: Any, batch: Arrays) -> list[str]:
    """Returns the names of the operations, first the one that adds most error.

    The error is how much further its output is from fp32's than its inputs were, as shares of mean
    squares.
    """
    import numpy as np

    operations = [node for node in model.get_ordered_ops() if node.get_type_name() in OPERATIONS]
    sources = {
        node.get_friendly_name(): [
            name for value in node.input_values() if (name := _activation(value.get_node()))
        ]
        for node in operations
    }
    wanted = sorted({name for pair in sources.items() for name in (pair[0], *pair[1])})
    there = {node.get_friendly_name() for node in quantised.get_ops()}
    wanted = [name for name in wanted if name in there]
    exact, rounded = (_inner(ov, version, wanted, batch) for version in (model, quantised))
    off = {
        name: float(np.mean((exact[name] - rounded[name]) ** 2)) / (float(np.mean(exact[name] ** 2)) or 1.0)
        for name in wanted
    }
    added = {
        name: off[name] - max((off.get(source, 0.0) for source in sources[name]), default=0.0)
        for name in sources
        if name in off
    }
    return sorted(added, key=lambda name: -added[name])


def layers(compiled: Any) -> list[Layer]:
    """Returns the layers of a compiled graph (its runtime model).

    Constants, inputs and outputs are left out.
    """
    listed = []
    for node in compiled.get_runtime_model().get_ops():
        about = node.get_rt_info()
        kind, precision = (str(about[key].astype(str)) for key in ("layerType", "runtimePrecision"))
        if kind not in ("Input", "Output", "Const"):
            names = str(about["originalLayersNames"].astype(str)).split(",")
            listed.append(Layer(kind, precision, tuple(names)))
    return listed


def products(model: Any, graph: Iterable[Layer]) -> list[tuple[str, str]]:
    """Returns name and precision of all that multiplies matrices.

    A fused Subgraph tells the precision of its first input alone. OpenVINO puts the rescaling
    behind a product of bytes and names it after that (low precision transformations), so inside a
    Subgraph the name says which products are of bytes.
    """
    operations = {node.get_friendly_name() for node in model.get_ops() if node.get_type_name() in OPERATIONS}
    listed = []
    for layer in graph:
        if layer.kind in LAYERS:
            listed.append((layer.names[0], layer.precision))
        elif layer.kind == "Subgraph":
            listed += [
                (name, "i8" if name + RESCALED in layer.names else "f32")
                for name in layer.names
                if name in operations
            ]
    return listed


def instructions() -> str:
    """Returns whether this CPU multiplies bytes at full rate, in words."""
    if names := cpu.eight_bit_products():
        return f"8-bit products by {' and '.join(names)}"
    return (
        f"this CPU has none of {', '.join(cpu.INT8_PRODUCTS)}: 8-bit products take three instructions,"
        " int8 may be no faster than fp32"
    )


def _quantise(model: Any, batches: Sequence[Arrays], preset: str, kept: Sequence[str]) -> Any:
    nncf = _library()
    # NNCF's default is the mean over the batches of their extremes, which cuts off what a single
    # one has above it: a convolution of the tests was 13 to 18 times as far from fp64 on fresh
    # random inputs as rounded.py, and 1.1 times with the extremes of all; resnet18, mobilenetv3 and
    # vit_tiny were as near either way.
    minmax = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
    # A pair of products of a byte and a weight of 7 bits fits into 16 bits. Without 8-bit products
    # in 32 bits, a transformer of the tests had a cosine to fp32 of 0.9945 with NNCF's default,
    # which is 7 bits in the first layer alone, and of 0.9997 with all weights in 7 bits or with its
    # rounded values multiplied in fp32.
    overflow = nncf.OverflowFix.FIRST_LAYER if cpu.eight_bit_products() else nncf.OverflowFix.ENABLE
    advanced = nncf.AdvancedQuantizationParameters(
        activations_range_estimator_params=minmax, overflow_fix=overflow
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # progress bars
            return nncf.quantize(
                model.clone(),
                nncf.Dataset([dict(enumerate(batch)) for batch in batches]),
                preset=nncf.QuantizationPreset(preset),
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(batches),
                fast_bias_correction=True,
                advanced_parameters=advanced,
                model_type=nncf.ModelType.TRANSFORMER if attends(model) else None,
                ignored_scope=nncf.IgnoredScope(names=list(kept)) if kept else None,
            )
    except (nncf.ValidationError, nncf.InternalError, nncf.UnsupportedModelError, RuntimeError) as error:
        branches = any(node.get_type_name() == "If" for node in model.get_ops())
        why = UNTAKEN if branches and "dataset must not be empty" in str(error) else error
        raise Refusal("build_failed", f"NNCF {nncf.__version__}: {why}") from error


def named(names: Sequence[str]) -> str:
    """Returns the first NAMED names and how many more there are."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def attends(model: Any) -> bool:
    """Returns whether a softmax, or what is between, goes into a matrix product."""
    for node in model.get_ops():
        if node.get_type_name() == "ScaledDotProductAttention":
            return True
        reached = [node] if node.get_type_name() == "Softmax" else []
        while reached:
            for target in (
                port.get_node() for output in reached.pop().outputs() for port in output.get_target_inputs()
            ):
                if target.get_type_name() == "MatMul":
                    return True
                if target.get_type_name() in BETWEEN:
                    reached.append(target)
    return False


def _activation(node: Any) -> str:
    """Returns a node's name, or nothing for weights and the model's own inputs, which are exact."""
    if node.get_type_name() in ("Constant", "Convert", "Parameter") or node.get_output_size() > 1:
        return ""
    return str(node.get_friendly_name())


def _inner(ov: Any, model: Any, names: Sequence[str], batch: Arrays) -> dict[str, Any]:
    """Returns the outputs of named operations inside of a model."""
    extended = model.clone()
    added = extended.add_outputs([(name, 0) for name in names])
    assert len(added) == len(names)
    outputs = _run(_compiled(ov, extended), batch)
    return dict(zip(names, outputs[-len(names) :], strict=True))


def _compiled(ov: Any, model: Any) -> Any:
    return compiled_by(ov, model, {"INFERENCE_PRECISION_HINT": "f32"})


def _run(compiled: Any, batch: Arrays) -> Arrays:
    import numpy as np

    return tuple(np.array(value) for value in compiled(dict(enumerate(batch))).to_tuple())


def _library() -> Any:
    """Returns the module nncf, told to print nothing.

    The caller has imported OpenVINO without its telemetry, so NNCF has none either.
    """
    import nncf

    nncf.set_log_level(logging.CRITICAL)
    return nncf
