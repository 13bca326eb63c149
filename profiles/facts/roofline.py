"""How near an operator comes to what the device can do: work and bytes from the recorded shapes,
peaks from the datasheet (perf/machine/peaks.py) or, of a CPU, as `hotlap profile` measured them.

Only products, convolutions and attention, whose work follows from their shapes. Bytes are each
input once and each output once. An operator above 100 % is no finding but a sign that shapes, peak
or cache do not fit: it gets no share.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ...perf.machine.peaks import Peak, datasheet
from ...perf.terms.case import Case
from ...perf.terms.reasons import Misuse
from ..tables import captured
from ..tables.trace import NONE, Column, Gpu, Trace

# Element types as torch and TensorRT name them.
DTYPES = {
    "float": "fp32",
    "fp32": "fp32",
    "fp16": "fp16",
    "bf16": "bf16",
    "int8": "int8",
    "c10::Half": "fp16",
    "half": "fp16",
    "c10::BFloat16": "bf16",
    "bfloat16": "bf16",
}
# Bytes of an element.
SIZES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "int8": 1}
# Kernels that round fp32 products to TF32: cuBLAS and cuDNN name them so, CUTLASS by the shape of
# its instruction.
TF32 = re.compile(r"tf32|s1688(?!.*(?:f16|bf16))", re.IGNORECASE)
# Sizes of each input.
Dims = list[Any]
# No size and no number of dimensions comes near; larger ones cost time to multiply.
LARGEST = 1 << 40
MOST_DIMENSIONS = 16


class OperatorWork(NamedTuple):
    """What an operator must do."""

    # A fused multiply-add is two.
    flops: float
    # Read and written, each once.
    elements: float


class Attained(NamedTuple):
    """How near one operator with one set of shapes comes to the roofline."""

    # The operator.
    name: str
    # Its shapes in words.
    dims: str
    # fp32, tf32, bf16, fp16, int8, or unknown.
    precision: str
    # How often it ran.
    calls: int
    # ns of what it launched, copies and fills too (on a CPU: its own).
    length: int
    # FLOP of all calls.
    flops: float
    # Bytes that all calls must move.
    moved_bytes: float
    # Of the roofline, 0 to 1; None where it cannot be told.
    share: float | None
    # Why there is no share.
    why: str = ""


def same(a: int, b: int) -> None:
    """Raises ValueError unless the two dimensions, which are summed over, are as large."""
    if a != b:
        raise ValueError("its shapes do not fit together")


def product(a: Dims, b: Dims, out: Dims, depth: int) -> OperatorWork:
    return OperatorWork(2.0 * math.prod(out) * depth, math.prod(a) + math.prod(b) + math.prod(out))


def mm(dims: Dims, values: list[str]) -> OperatorWork:
    a, b = dims[:2]
    same(a[1], b[0])
    return product(a, b, [a[0], b[1]], a[1])


def addmm(dims: Dims, values: list[str]) -> OperatorWork:
    """Returns the work of a product and a sum, whose bytes are counted and additions are not."""
    work = mm(dims[1:3], values)
    return OperatorWork(work.flops, work.elements + math.prod(dims[0]))


def bmm(dims: Dims, values: list[str]) -> OperatorWork:
    a, b = dims[:2]
    same(a[2], b[1])
    return product(a, b, [a[0], a[1], b[2]], a[2])


def baddbmm(dims: Dims, values: list[str]) -> OperatorWork:
    return bmm(dims[1:3], values)


def linear(dims: Dims, values: list[str]) -> OperatorWork:
    """Returns the work of (..., K) and (N, K).

    Of the overloads only the one without another operand, which has six arguments.
    """
    x, weight = dims[:2]
    if len(dims) != 6:
        raise ValueError("its shapes do not tell")
    same(x[-1], weight[1])
    return product([math.prod(x[:-1]), x[-1]], weight, [math.prod(x[:-1]), weight[0]], x[-1])


def convolution(dims: Dims, values: list[str], first: int) -> OperatorWork:
    """Returns the work of a forward convolution.

    The output's size follows from stride, padding and dilation, which stand among the concrete
    values from `first` on.
    """
    x, weight = dims[:2]
    settings = [msgspec.json.decode(values[index]) for index in range(first, first + 3)]
    window = weight[2:]
    stride, padding, dilation = (value * len(window) if len(value) == 1 else value for value in settings)
    out = [
        (x[i + 2] + 2 * padding[i] - dilation[i] * (window[i] - 1) - 1) // stride[i] + 1
        for i in range(len(window))
    ]
    output = [x[0], weight[0], *out]
    return OperatorWork(
        2.0 * math.prod(output) * math.prod(weight[1:]), math.prod(x) + math.prod(weight) + math.prod(output)
    )


def forwards(values: list[str], index: int) -> list[str]:
    """Returns the same values. Raises ValueError for a transposed convolution: other work."""
    if values[index] != "False":
        raise ValueError("a transposed convolution")
    return values


def convolution_backward(dims: Dims, values: list[str]) -> OperatorWork:
    """Returns the forward's work for each gradient asked for, of input and of weight."""
    forwards(values, 7)
    grad, x, weight = dims[:3]
    to_x, to_weight = (flag.strip() == "True" for flag in values[10].strip("[]").split(",")[:2])
    forward = 2.0 * math.prod(grad) * math.prod(weight[1:])
    read = math.prod(grad) + math.prod(x) + math.prod(weight)
    return OperatorWork(
        (to_x + to_weight) * forward, read + to_x * math.prod(x) + to_weight * math.prod(weight)
    )


def attention(dims: Dims, causal: str, heads_last: bool) -> OperatorWork:
    """Returns the work of attention on (B, S, H, D) with heads_last, else on (B, H, S, D).

    Of a causal one half of the products are needed.
    """
    query, key, value = dims[:3]
    batch, heads, long, depth = (query[0], query[2], query[1], query[3]) if heads_last else query
    keys = key[1] if heads_last else key[2]
    if causal not in ("True", "False"):
        raise ValueError("whether it is causal is not recorded")
    if causal == "True" and keys != long:
        raise ValueError("causal, with other lengths of queries and keys")
    factor = 0.5 if causal == "True" else 1.0
    return OperatorWork(
        factor * 2.0 * batch * heads * long * keys * (depth + value[3]),
        2 * math.prod(query) + math.prod(key) + math.prod(value),
    )


# The work of each operator, from the dimensions of its inputs and its other arguments.
WORK: dict[str, Callable[[Dims, list[str]], OperatorWork]] = {
    "aten::mm": mm,
    "aten::addmm": addmm,
    "aten::bmm": bmm,
    "aten::baddbmm": baddbmm,
    "aten::cudnn_convolution": lambda dims, values: convolution(
        dims, [values[0], values[1], values[3], values[2], values[4]], 2
    ),
    "aten::mkldnn_convolution": lambda dims, values: convolution(
        dims, [*values[:3], values[4], values[3], values[5]], 3
    ),
    "aten::_slow_conv2d_forward": lambda dims, values: convolution(dims, [values[4], values[5], "[1]"], 0),
    "mkldnn::_convolution_pointwise": lambda dims, values: convolution(
        dims, [values[4], values[3], values[5]], 0
    ),
    "mkldnn::_convolution_pointwise_": lambda dims, values: convolution(
        dims[1:], [values[5], values[4], values[6]], 0
    ),
    "mkldnn::_linear_pointwise": linear,
    "aten::convolution": lambda dims, values: convolution(dims, forwards(values, 6), 3),
    "aten::_convolution": lambda dims, values: convolution(dims, forwards(values, 6), 3),
    "aten::convolution_backward": convolution_backward,
    "CaskConvolution": lambda dims, values: convolution(dims, values, 3),
    "CaskGemmConvolution": lambda dims, values: convolution(dims, values, 3),
    "aten::miopen_convolution": lambda dims, values: convolution(
        dims, [*values[:3], values[4], values[3], values[5]], 3
    ),
    "aten::_flash_attention_forward": lambda dims, values: attention(
        dims, values[8] if not dims[3] else "", heads_last=True
    ),
    "aten::_scaled_dot_product_flash_attention_for_cpu": lambda dims, values: attention(
        dims, values[4], heads_last=False
    ),
    "aten::_scaled_dot_product_cudnn_attention": lambda dims, values: attention(
        dims, values[6], heads_last=False
    ),
}
# On a CPU an operator's time contains that of the operators it calls: these only call another one
# of the list.
OUTER = {"aten::convolution", "aten::_convolution"}


def attained(trace: Trace, gpu: Gpu, behind: Column) -> list[Attained]:
    """Returns each operator with each set of shapes, the longest first.

    It is empty where the file has no shapes. `behind` is the operator of each GPU event.
    """
    peak = device_peak(trace)
    spans, tf32 = trace.operators, trace.named(TF32)
    rows: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])
    rounded: set[tuple[int, int]] = set()
    if len(gpu):
        known = behind != NONE
        lengths = np.bincount(behind[known], gpu.dur[known], minlength=len(spans)).astype(np.int64)
        operators = np.flatnonzero(lengths)
        rounded = {
            (int(spans.name[row]), int(spans.shape[row])) for row in np.unique(behind[known & tf32[gpu.name]])
        }
    else:
        lengths, operators = spans.dur, np.arange(len(spans))
    wanted = np.array(
        [name in WORK and (len(gpu) > 0 or name not in OUTER) for name in trace.names], dtype=bool
    )
    for row in operators[wanted[spans.name[operators]] & (spans.shape[operators] != NONE)].tolist():
        entry = rows[int(spans.name[row]), int(spans.shape[row])]
        entry[0] += 1
        entry[1] += int(lengths[row])
    rows_attained = [
        against_peak(trace.names[name], trace.shapes[shape], calls, length, (name, shape) in rounded, peak)
        for (name, shape), (calls, length) in rows.items()
    ]
    return sorted(rows_attained, key=lambda row: -row.length)


def device_peak(trace: Trace) -> Peak | None:
    """Returns the peak of the file's GPU by its datasheet.

    Of a CPU it is what was measured when the file was captured, for the precision of its case only.
    """
    if len(trace.gpu):
        return datasheet(trace.gpu_name)
    origin = captured.of(trace)
    if origin is None or not origin.peaks.get("flop_rate") or not origin.peaks.get("byte_rate"):
        return None
    try:
        precision = Case.parse(origin.case).precision
    except Misuse:
        return None
    return Peak(
        {precision: origin.peaks["flop_rate"]},
        origin.peaks["byte_rate"],
        "measured when the file was captured",
    )


def against_peak(name: str, shape: bytes, calls: int, length: int, tf32: bool, peak: Peak | None) -> Attained:
    """Returns an operator's share of the roofline.

    What the file has of its inputs may be anything: without sense there is no share, but a reason.
    """
    dims: Dims = []
    precision, work, why = "unknown", OperatorWork(0, 0), ""
    try:
        dims, types, values = msgspec.json.decode(shape)
        sizes(dims)
        precision = next((DTYPES[kind] for kind in types if kind in DTYPES), "unknown")
        work = WORK[name](dims, list(values or []))
        if not all(math.isfinite(value) and value > 0 for value in work):
            raise ValueError("its shapes are no shapes")
    except ValueError as error:
        why = str(error) if type(error) is ValueError else "its shapes cannot be read"
    except (
        TypeError,
        IndexError,
        KeyError,
        AttributeError,
        ZeroDivisionError,
        OverflowError,
        RecursionError,
    ):
        why = (
            "its shapes do not tell (older torch does not record stride and padding)"
            if "convolution" in name
            else "its shapes do not tell"
        )
    precision = "tf32" if tf32 and precision == "fp32" else precision
    moved = work.elements * SIZES.get(precision, 0)
    share = None
    if not why:
        least_s = peak.roofline_s(calls * work.flops, calls * moved, precision) if peak else None
        if least_s is None:
            why = f"no peak is known for {precision}" if peak else "no peak of this device is known"
        elif not length or least_s * 1e9 > length:
            why = "above 100 %: peak, shapes or cached inputs do not fit"
        else:
            share = least_s * 1e9 / length
    return Attained(
        name, shapes_text(dims), precision, calls, length, calls * work.flops, calls * moved, share, why
    )


def sizes(dims: Any) -> None:
    """Raises ValueError unless these are lists of sizes, which only then may be multiplied."""
    for each in dims if isinstance(dims, list) else [None]:
        if not isinstance(each, list) or len(each) > MOST_DIMENSIONS:
            raise ValueError("its shapes are no shapes")
        for size in each:
            if isinstance(size, list):
                continue  # a list of tensors, which no formula takes
            if type(size) is not int or not 0 <= size <= LARGEST:
                raise ValueError("its shapes are no shapes")


def shapes_text(dims: Any) -> str:
    """Returns shapes in words: [[8, 64], [64, 32], []] is 8x64, 64x32."""
    if not isinstance(dims, list):
        return ""
    return ", ".join(
        "x".join(str(size)[:12] for size in each[:8])
        for each in dims[:4]
        if isinstance(each, list) and each and not isinstance(each[0], list)
    )


def by_operator(rows: list[Attained]) -> dict[str, float]:
    """Returns each operator's share of the roofline, where it is known for 90 % of its time."""
    total: dict[str, int] = defaultdict(int)
    known: dict[str, int] = defaultdict(int)
    least: dict[str, float] = defaultdict(float)
    for row in rows:
        total[row.name] += row.length
        if row.share is not None:
            known[row.name] += row.length
            least[row.name] += row.share * row.length
    return {
        name: least[name] / known[name] for name in known if known[name] and known[name] >= 0.9 * total[name]
    }
