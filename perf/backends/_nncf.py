"""int8 by NNCF: post-training quantisation of an OpenVINO model, and which operations stay in fp32 where 8 bits cost too much.

For the worker that builds; what loads the model needs OpenVINO alone. NNCF has its ranges from most of the calibration batches and is judged on the
others. Where outputs are too far from fp32's, the operations that add most error stay in fp32: twice as many at each try, so that few tries reach far.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..calibration import Calibration
from ..reasons import Refusal
from . import Arrays, _machine

REMEDY = "pip install 'hotlap[openvino]'"
# Outputs off by 14 % of their size (sin(acos(0.99))): a trained classifier was seen to keep its answers up to about there; what counts is the oracle's verdict.
COSINE = 0.99
TRIES = 4
HELD_BACK = 4
BATCHES_JUDGED = 16

OPERATIONS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
# Activations with a negative side of another length than the positive one, for which NNCF's documentation advises the preset mixed (quantize_model.py).
ONE_SIDED = ("Swish", "HSwish", "Gelu", "Elu", "PRelu", "Mish", "SoftPlus")
LAYERS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul", "ScaledDotProductAttention")
BYTES = ("i8", "u8")
SHAPE_ONLY = ("Reshape", "Transpose", "Convert", "Squeeze", "Unsqueeze")
VNNI = ("avx512_vnni", "avx_vnni", "amx_int8")


class Layer(NamedTuple):
    """One layer of a compiled graph. names: the operations of the model that it stands for."""

    kind: str
    precision: str
    names: tuple[str, ...]


class Quantised(NamedTuple):
    """evidence: what was done, for the reader of a result."""

    model: Any
    evidence: tuple[str, ...]


class Try(NamedTuple):
    model: Any
    cosine: float
    kept: Sequence[str]


def quantise(ov: Any, model: Any, given: Calibration) -> Quantised:
    """Raises Refusal(invalid_input) for calibration inputs that say nothing, Refusal(build_failed) with NNCF's message."""
    _refuse_useless(given.batches)
    used, held, apart = split(given.batches)
    wanted = [_run(_compiled(ov, model), batch) for batch in held]

    def attempt(kept: Sequence[str]) -> Try:
        quantised = _quantise(model, used, kept)
        compiled = _compiled(ov, quantised)
        return Try(quantised, cosine(wanted, [_run(compiled, batch) for batch in held]), kept)

    first = best = attempt(())
    tries = 0
    if first.cosine < COSINE:
        order = by_error(ov, model, first.model, held[0])
        for tries in range(1, TRIES + 1):
            kept = order[: min(2 ** (tries - 1), len(order) // 2)]
            if tuple(kept) == tuple(best.kept):
                break
            best = max(best, attempt(kept), key=lambda one: one.cosine)
            if best.cosine >= COSINE:
                break
    left = in_fp32(model, layers(_compiled(ov, best.model)))
    judged = f"{len(held)} batches held back" if apart else "the batch of the calibration itself, there being no other"
    lines = [
        f"NNCF {_library().__version__}: ranges from {len(used)} of {len(given.batches)} batches of {given.source}, {_scheme(model)}",
        f"cosine to fp32 {first.cosine:.6f} on {judged}"
        + ("" if first.cosine >= COSINE else f", below {COSINE}: {best.cosine:.6f} after {tries} tries with operations left in fp32"),
        "left in fp32: " + (", ".join(left) if left else "none of the convolutions and matrix products"),
    ]
    if best.cosine < COSINE:
        lines.append(f"the cosine stays below {COSINE}: the outputs decide")
    return Quantised(best.model, tuple(lines))


def split(batches: Sequence[Arrays]) -> tuple[Sequence[Arrays], Sequence[Arrays], bool]:
    """Batches for the ranges, batches to be judged on, and whether those are others. The first is always used: it may be the only real one."""
    if len(batches) < 2:
        return batches, batches, False
    held = [batch for index, batch in enumerate(batches) if index % HELD_BACK == HELD_BACK - 1] or batches[1:]
    taken = {id(batch) for batch in held}
    return [batch for batch in batches if id(batch) not in taken], held[:BATCHES_JUDGED], True


def cosine(wanted: Sequence[Arrays], found: Sequence[Arrays]) -> float:
    """Of the output that is furthest from what was wanted; 0 where one is not finite."""
    import numpy as np

    worst = 1.0
    for ours, theirs in zip(zip(*wanted, strict=True), zip(*found, strict=True), strict=True):
        a, b = (np.concatenate([np.ravel(value).astype("float64") for value in values]) for values in (ours, theirs))
        norms = float(np.linalg.norm(a) * np.linalg.norm(b))
        if norms > 0 and math.isfinite(norms):
            worst = min(worst, float(a @ b) / norms)
        elif not np.array_equal(a, b):
            worst = 0.0
    return worst


def by_error(ov: Any, model: Any, quantised: Any, batch: Arrays) -> list[str]:
    """Names of the operations, first the one whose output is further from fp32's than its inputs were, as shares of mean squares."""
    import numpy as np

    operations = [one for one in model.get_ordered_ops() if one.get_type_name() in OPERATIONS]
    sources = {one.get_friendly_name(): [name for value in one.input_values() if (name := _activation(value.get_node()))] for one in operations}
    wanted = sorted({name for pair in sources.items() for name in (pair[0], *pair[1])})
    there = {one.get_friendly_name() for one in quantised.get_ops()}
    wanted = [name for name in wanted if name in there]
    exact, rounded = (_inner(ov, one, wanted, batch) for one in (model, quantised))
    off = {name: float(np.mean((exact[name] - rounded[name]) ** 2)) / (float(np.mean(exact[name] ** 2)) or 1.0) for name in wanted}
    added = {name: off[name] - max((off.get(source, 0.0) for source in sources[name]), default=0.0) for name in sources if name in off}
    return sorted(added, key=lambda name: -added[name])


def layers(compiled: Any) -> list[Layer]:
    """Of the compiled graph (its runtime model), without constants, inputs and outputs."""
    found = []
    for node in compiled.get_runtime_model().get_ops():
        about = node.get_rt_info()
        kind, precision = (str(about[key].astype(str)) for key in ("layerType", "runtimePrecision"))
        if kind not in ("Input", "Output", "Const"):
            found.append(Layer(kind, precision, tuple(str(about["originalLayersNames"].astype(str)).split(","))))
    return found


def in_fp32(model: Any, found: Iterable[Layer]) -> list[str]:
    """The model's operations that no layer in 8 bits stands for. OpenVINO names a layer after the rescaling that it took in."""
    eight = {
        name.removesuffix(suffix) for layer in found if layer.precision in BYTES for name in layer.names for suffix in ("", "/DequantizationMultiply", "/DequantizationSubtract")
    }
    return [name for one in model.get_ordered_ops() if one.get_type_name() in OPERATIONS and (name := one.get_friendly_name()) not in eight]


def instructions() -> str:
    """Whether this CPU multiplies bytes at full rate."""
    found = [flag for flag in VNNI if flag in _machine.cpu_flags()]
    return (
        f"8-bit products by {' and '.join(found)}" if found else f"this CPU has none of {', '.join(VNNI)}: 8-bit products take three instructions, int8 may be no faster than fp32"
    )


def _quantise(model: Any, batches: Sequence[Arrays], kept: Sequence[str]) -> Any:
    nncf = _library()
    transformer, mixed = _attends(model), _one_sided(model)
    preset = nncf.QuantizationPreset.MIXED if transformer or mixed else nncf.QuantizationPreset.PERFORMANCE
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # progress bars
            return nncf.quantize(
                model.clone(), nncf.Dataset([dict(enumerate(batch)) for batch in batches]), preset=preset, target_device=nncf.TargetDevice.CPU,
                subset_size=len(batches), fast_bias_correction=True, model_type=nncf.ModelType.TRANSFORMER if transformer else None,
                ignored_scope=nncf.IgnoredScope(names=list(kept)) if kept else None,
            )  # fmt: skip
    except (nncf.ValidationError, nncf.InternalError, nncf.UnsupportedModelError, RuntimeError) as error:
        raise Refusal("build_failed", f"NNCF {nncf.__version__}: {error}") from error


def _scheme(model: Any) -> str:
    if _attends(model):
        return "preset mixed, model type transformer"
    return "preset mixed" if _one_sided(model) else "preset performance"


def _attends(model: Any) -> bool:
    """Whether a softmax, or what is left of its shape, goes into a matrix product."""
    for node in model.get_ops():
        if node.get_type_name() == "ScaledDotProductAttention":
            return True
        reached = [node] if node.get_type_name() == "Softmax" else []
        while reached:
            for target in (port.get_node() for output in reached.pop().outputs() for port in output.get_target_inputs()):
                if target.get_type_name() == "MatMul":
                    return True
                if target.get_type_name() in SHAPE_ONLY:
                    reached.append(target)
    return False


def _one_sided(model: Any) -> bool:
    return any(node.get_type_name() in ONE_SIDED for node in model.get_ops())


def _activation(node: Any) -> str:
    """Its name, or nothing for weights and the model's own inputs, which are exact."""
    return "" if node.get_type_name() in ("Constant", "Convert", "Parameter") or node.get_output_size() > 1 else str(node.get_friendly_name())


def _inner(ov: Any, model: Any, names: Sequence[str], batch: Arrays) -> dict[str, Any]:
    extended = model.clone()
    added = extended.add_outputs([(name, 0) for name in names])
    assert len(added) == len(names)
    outputs = _run(_compiled(ov, extended), batch)
    return dict(zip(names, outputs[-len(names) :], strict=True))


def _compiled(ov: Any, model: Any) -> Any:
    return ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def _run(compiled: Any, batch: Arrays) -> Arrays:
    import numpy as np

    return tuple(np.array(value) for value in compiled(dict(enumerate(batch))).to_tuple())


def _refuse_useless(batches: Sequence[Arrays]) -> None:
    import numpy as np

    inputs = [np.stack(values) for values in zip(*batches, strict=True)]
    if not all(np.isfinite(value).all() for value in inputs):
        raise Refusal("invalid_input", "calibration inputs hold NaN or infinity: int8 has no ranges to take from them; give Workload.calibration finite ones")
    if all(value.min() == value.max() for value in inputs):
        values = ", ".join(f"{value.min():g}" for value in inputs)
        raise Refusal("invalid_input", f"calibration inputs hold one value only ({values}): int8 has no ranges to take from them; give Workload.calibration real ones")


def _library() -> Any:
    """The caller has imported OpenVINO without its telemetry, so NNCF has none either."""
    import nncf

    nncf.set_log_level(logging.CRITICAL)
    return nncf
