"""y = act((x - mean) r weight + bias + residual) with r = 1 / sqrt(var + eps); mean and biased
variance of each channel over all else, in training; act is ReLU or nothing.

x and residual (N, C, H, W) or (M, C), weight and bias (C,); fp32, fp16, bf16, weight and bias in
one dtype of their own; y as x. It is for memory in which the channels of a pixel lie side by side
(channels_last): another layout is copied first, and y is channels_last whatever x is. Raises
Unsupported for fewer than two values a channel and other shapes or dtypes. Ioffe and Szegedy, Batch
Normalization, https://arxiv.org/abs/1502.03167. Running statistics are the caller's: the mean is
returned, and the biased variance is 1 / scale^2 - eps. Programs keep counts, means and sums of
squares around these, which are joined without cancellation (Chan, Golub and LeVeque, Algorithms for
computing the sample variance, 1983). With h = (x - mean) r, g = dy where y > 0, and M values a
channel: dbias = sum(g), dweight = sum(g h), dx = weight r (g - dbias / M - h dweight / M),
dresidual = g.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
import triton
import triton.language as tl

from .. import rows as settings
from ..contract import DTYPES, POINTER, Build, Cost, Unsupported, launches
from ..patterns import Pattern

EPS = 1e-5
RETURNS = ("y", "mean", "scale")
GRADIENTS = ("x", "weight", "bias", "residual")
AUTOCAST = "none"
SETTINGS = ({"channels": 64}, {"channels": 2048}, {"added": False}, {"channels": 64, "added": False})
# Channels of a program: a line of 128 bytes of bf16. Programs of a reduction: half of what fills an
# H100 with 8 warps each, so that the second stage stays short. Elements of a tile: of a reduction
# that holds two sums for each, and of one with as many inputs more; STEPS tiles share the loads of
# what belongs to a channel.
CHANNELS, PROGRAMS, WARPS, STEPS = 64, 512, 8, 4
STATISTICS, TILE = 4096, 2048
JOINED = (128, 16)


def reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    residual: torch.Tensor | None = None,
    eps: float = EPS,
    relu: bool = True,
) -> torch.Tensor:
    y = torch.nn.functional.batch_norm(x, None, None, weight, bias, training=True, eps=eps)
    y = y if residual is None else y + residual
    return y.relu() if relu else y


def results(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    residual: torch.Tensor | None = None,
    eps: float = EPS,
    relu: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    variance, mean = torch.var_mean(x.float(), [one for one in range(x.ndim) if one != 1], correction=0)
    y = reference(x, weight, bias, residual, eps, relu)
    return (
        y.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else y,
        mean,
        (variance + eps).rsqrt(),
    )


def with_residual(x: torch.Tensor, norm: torch.nn.BatchNorm2d, residual: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.relu(norm(x) + residual)


def with_relu(x: torch.Tensor, norm: torch.nn.BatchNorm2d) -> torch.Tensor:
    return torch.nn.functional.relu(norm(x))


def alone(x: torch.Tensor, norm: torch.nn.BatchNorm2d) -> torch.Tensor:
    return norm(x)


def training(
    relu: bool, x: torch.Tensor, norm: torch.nn.BatchNorm2d, residual: torch.Tensor | None = None
) -> tuple[object, ...] | None:
    """None in evaluation: an affine map that a compiler folds into the convolution before it."""
    if not norm.training:
        return None
    if norm.weight is None:
        raise Unsupported("BatchNorm2d has no weight; make it with affine=True")
    return x, norm.weight, norm.bias, residual, norm.eps, relu


def tracked(given: tuple[object, ...], made: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Updates the module's running statistics, with the unbiased variance, as torch does."""
    x, norm = given[:2]
    y, mean, scale = made
    if norm.track_running_stats:
        with torch.no_grad():
            norm.num_batches_tracked.add_(1)
            share = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
            values = x.numel() // x.shape[1]
            variance = (scale.square().reciprocal() - norm.eps) * (values / (values - 1))
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
            norm.running_var.lerp_(variance.to(norm.running_var.dtype), share)
    return y


PATTERNS = (
    Pattern(with_residual, partial(training, True), tracked),
    Pattern(with_relu, partial(training, True), tracked),
    Pattern(alone, partial(training, False), tracked),
)


@triton.jit
def joined(count, mean, square, rows):
    """Of sets with a count (K,), means and sums of squares around them (K, BLOCK), those of their
    union; the mean is rounded once more, around the first one.
    """
    rough = tl.sum(count[:, None] * mean, 0) / rows  # (BLOCK,)
    away = mean - rough[None, :]
    more = tl.sum(count[:, None] * away, 0) / rows
    return rough + more, tl.sum(square + count[:, None] * away * away, 0) - rows * more * more


@triton.jit(do_not_specialize=["rows", "each"])
def statistics_kernel(
    x, means, squares, rows, columns, x_stride, each, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """Each program takes `each` rows of one block of channels, and each place of its tile every
    ROWS-th of these rows.
    """
    program = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)  # (BLOCK,)
    count = tl.zeros((ROWS,), tl.float32)
    mean = tl.zeros((ROWS, BLOCK), tl.float32)
    square = tl.zeros((ROWS, BLOCK), tl.float32)
    taken = 0.0
    for start in range(0, each, ROWS):
        row = program * each + start + tl.arange(0, ROWS)  # (ROWS,)
        inside = (row < rows)[:, None] & (column < columns)[None, :]
        value = tl.load(x + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        taken += 1.0
        away = tl.where(inside, value - mean, 0.0)
        mean += away * (1.0 / taken)
        square += away * (value - mean)
        count += tl.where(row < rows, 1.0, 0.0)
    m, s = joined(count, mean, square, tl.sum(count, 0))
    tl.store(means + program * columns + column, m, mask=column < columns)
    tl.store(squares + program * columns + column, s, mask=column < columns)


@triton.jit(do_not_specialize=["rows", "programs", "each"])
def combine_kernel(
    means, squares, mean, scale, rows, columns, programs, each, eps, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    count = tl.zeros((ROWS,), tl.float32)
    m = tl.zeros((ROWS, BLOCK), tl.float32)
    s = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, programs, ROWS):
        program = start + tl.arange(0, ROWS).to(tl.int64)
        inside = (program < programs)[:, None] & (column < columns)[None, :]
        more = tl.minimum(tl.maximum(rows - program * each, 0), each).to(tl.float32)  # (ROWS,)
        share = more / tl.maximum(count + more, 1.0)
        away = tl.load(means + program[:, None] * columns + column[None, :], mask=inside, other=0.0) - m
        s += (
            tl.load(squares + program[:, None] * columns + column[None, :], mask=inside, other=0.0)
            + away * away * (count * share)[:, None]
        )
        m += away * share[:, None]
        count += more
    m, s = joined(count, m, s, rows)
    tl.store(mean + column, m, mask=column < columns)
    tl.store(scale + column, 1.0 / tl.sqrt(s / rows + eps), mask=column < columns)


@triton.jit(do_not_specialize=["rows"])
def forward_kernel(
    x,
    residual,
    weight,
    bias,
    mean,
    scale,
    y,
    rows,
    columns,
    x_stride,
    residual_stride,
    y_stride,
    RELU: tl.constexpr,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    m = tl.load(mean + column, mask=column < columns, other=0.0)
    w = tl.load(weight + column, mask=column < columns, other=0.0).to(tl.float32) * tl.load(
        scale + column, mask=column < columns, other=0.0
    )
    b = tl.load(bias + column, mask=column < columns, other=0.0).to(tl.float32)
    for step in range(STEPS):
        row = (tl.program_id(0).to(tl.int64) * STEPS + step) * ROWS + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (column < columns)[None, :]
        value = tl.load(x + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        value = (value - m[None, :]) * w[None, :] + b[None, :]
        if residual is not None:
            value += tl.load(
                residual + row[:, None] * residual_stride + column[None, :], mask=inside, other=0.0
            ).to(tl.float32)
        if RELU:
            value = tl.where(value < 0.0, 0.0, value)  # NaN stays
        tl.store(y + row[:, None] * y_stride + column[None, :], value, mask=inside)


@triton.jit
def passed(dy, y, row, column, inside, dy_stride, y_stride):
    """dy where the ReLU let something through; everywhere without one."""
    slope = tl.load(dy + row[:, None] * dy_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
    if y is not None:
        slope = tl.where(
            tl.load(y + row[:, None] * y_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
            <= 0.0,
            0.0,
            slope,
        )
    return slope


@triton.jit(do_not_specialize=["rows", "each"])
def sums_kernel(
    dy,
    x,
    y,
    mean,
    scale,
    partial_weight,
    partial_bias,
    rows,
    columns,
    dy_stride,
    x_stride,
    y_stride,
    each,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Each program takes `each` rows of one block of channels and leaves partial sums of dweight
    and of dbias.
    """
    program = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    m = tl.load(mean + column, mask=column < columns, other=0.0)
    total_weight = tl.zeros((ROWS, BLOCK), tl.float32)
    total_bias = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, each, ROWS):
        row = program * each + start + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (column < columns)[None, :]
        g = passed(dy, y, row, column, inside, dy_stride, y_stride)
        value = tl.load(x + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        total_weight += g * (value - m[None, :])
        total_bias += g
    r = tl.load(scale + column, mask=column < columns, other=0.0)
    tl.store(partial_weight + program * columns + column, tl.sum(total_weight, 0) * r, mask=column < columns)
    tl.store(partial_bias + program * columns + column, tl.sum(total_bias, 0), mask=column < columns)


@triton.jit(do_not_specialize=["programs"])
def add_kernel(
    partial_weight,
    partial_bias,
    sum_weight,
    sum_bias,
    dweight,
    dbias,
    columns,
    programs,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total_weight = tl.zeros((ROWS, BLOCK), tl.float32)
    total_bias = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, programs, ROWS):
        program = start + tl.arange(0, ROWS).to(tl.int64)
        inside = (program < programs)[:, None] & (column < columns)[None, :]
        total_weight += tl.load(
            partial_weight + program[:, None] * columns + column[None, :], mask=inside, other=0.0
        )
        total_bias += tl.load(
            partial_bias + program[:, None] * columns + column[None, :], mask=inside, other=0.0
        )
    of_weight, of_bias = tl.sum(total_weight, 0), tl.sum(total_bias, 0)  # (BLOCK,)
    tl.store(sum_weight + column, of_weight, mask=column < columns)
    tl.store(sum_bias + column, of_bias, mask=column < columns)
    tl.store(dweight + column, of_weight, mask=column < columns)
    tl.store(dbias + column, of_bias, mask=column < columns)


@triton.jit(do_not_specialize=["rows"])
def backward_kernel(
    dy,
    x,
    y,
    weight,
    mean,
    scale,
    sum_weight,
    sum_bias,
    dx,
    dresidual,
    rows,
    columns,
    dy_stride,
    x_stride,
    y_stride,
    dx_stride,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    m = tl.load(mean + column, mask=column < columns, other=0.0)
    r = tl.load(scale + column, mask=column < columns, other=0.0)
    w = tl.load(weight + column, mask=column < columns, other=0.0).to(tl.float32) * r
    along = tl.load(sum_weight + column, mask=column < columns, other=0.0) * r / rows
    level = tl.load(sum_bias + column, mask=column < columns, other=0.0) / rows
    for step in range(STEPS):
        row = (tl.program_id(0).to(tl.int64) * STEPS + step) * ROWS + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (column < columns)[None, :]
        g = passed(dy, y, row, column, inside, dy_stride, y_stride)
        value = tl.load(x + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        tl.store(
            dx + row[:, None] * dx_stride + column[None, :],
            w[None, :] * (g - level[None, :] - (value - m[None, :]) * along[None, :]),
            mask=inside,
        )
        if dresidual is not None:
            tl.store(dresidual + row[:, None] * dx_stride + column[None, :], g, mask=inside)


def tile(columns: int, elements: int) -> tuple[int, int]:
    """(rows, channels) of a program at once."""
    block = min(CHANNELS, triton.next_power_of_2(columns))
    return elements // block, block


def shares(rows: int, columns: int, elements: int) -> tuple[int, int]:
    """Programs that share the rows of one block of channels, and the rows of each (whole tiles)."""
    step, block = tile(columns, elements)
    each = triton.cdiv(triton.cdiv(rows, max(1, PROGRAMS // triton.cdiv(columns, block))), step) * step
    return triton.cdiv(rows, each), each


def matrix(x: torch.Tensor, name: str) -> torch.Tensor:
    """(M, C); copied only where the channels do not lie side by side."""
    return settings.matrix(x.movedim(1, -1), name)


def shaped(flat: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(M, C) in the shape of x: channels_last."""
    return flat.view(x.movedim(1, -1).shape).movedim(-1, 1)


def check(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, residual: torch.Tensor | None = None
) -> None:
    if (
        x.ndim not in (2, 4)
        or weight.shape != x.shape[1:2]
        or bias.shape != weight.shape
        or bias.dtype != weight.dtype
    ):
        said = (
            f"x {tuple(x.shape)}, weight {weight.dtype}{tuple(weight.shape)}, bias"
            f" {bias.dtype}{tuple(bias.shape)}"
        )
        raise Unsupported(f"{said}; expected (N, C, H, W) or (M, C), and weight and bias (C,) of one dtype")
    if math.prod(x.shape[2:]) * x.shape[0] < 2:
        raise Unsupported(f"x {tuple(x.shape)}: training needs more than one value a channel")
    if residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
        raise Unsupported(
            f"x {x.dtype}{tuple(x.shape)} and residual {residual.dtype}{tuple(residual.shape)}; expected one"
            " shape and dtype"
        )


def forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    residual: torch.Tensor | None = None,
    eps: float = EPS,
    relu: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """y, and of each channel its mean and scale r (C,)."""
    check(x, weight, bias, residual)
    flat, other = matrix(x, "x"), None if residual is None else matrix(residual, "residual")
    y = torch.empty_like(flat, memory_format=torch.contiguous_format)
    mean, scale = (torch.empty(x.shape[1], dtype=torch.float32, device=x.device) for _ in range(2))
    if launches(flat):
        rows, columns = flat.shape
        programs, each = shares(rows, columns, STATISTICS)
        step, block = tile(columns, STATISTICS)
        blocks = triton.cdiv(columns, block)
        partial = torch.empty(2, programs, columns, dtype=torch.float32, device=x.device)
        statistics_kernel[(programs, blocks)](
            flat, *partial, rows, columns, flat.stride(0), each, step, block, num_warps=WARPS
        )
        combine_kernel[(triton.cdiv(columns, JOINED[1]),)](
            *partial, mean, scale, rows, columns, programs, each, eps, *JOINED, num_warps=WARPS
        )
        step, block = tile(columns, TILE)
        tensors = (flat, other, weight.contiguous(), bias.contiguous(), mean, scale, y)
        strides = (flat.stride(0), 0 if other is None else other.stride(0), y.stride(0))
        forward_kernel[(triton.cdiv(rows, step * STEPS), blocks)](
            *tensors, rows, columns, *strides, relu, STEPS, step, block, num_warps=WARPS
        )
    return shaped(y, x), mean, scale


def backward(
    dy: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    residual: torch.Tensor | None,
    relu: bool,
    y: torch.Tensor,
    mean: torch.Tensor,
    scale: torch.Tensor,
) -> list[torch.Tensor]:
    """dx, dweight, dbias, and dresidual if there was a residual, of which nothing else is asked."""
    flat, slope, made = matrix(x, "x"), matrix(dy, "dy"), matrix(y, "y") if relu else None
    dx = torch.empty_like(flat, memory_format=torch.contiguous_format)
    dresidual = None if residual is None else torch.empty_like(dx)
    dweight, dbias = (torch.empty_like(weight, memory_format=torch.contiguous_format) for _ in range(2))
    if launches(flat):
        rows, columns = flat.shape
        programs, each = shares(rows, columns, TILE)
        step, block = tile(columns, TILE)
        blocks = triton.cdiv(columns, block)
        partial = torch.empty(2, programs, columns, dtype=torch.float32, device=x.device)
        sums = torch.empty(2, columns, dtype=torch.float32, device=x.device)
        strides = (slope.stride(0), flat.stride(0), 0 if made is None else made.stride(0))
        sums_kernel[(programs, blocks)](
            slope,
            flat,
            made,
            mean,
            scale,
            *partial,
            rows,
            columns,
            *strides,
            each,
            step,
            block,
            num_warps=WARPS,
        )
        add_kernel[(triton.cdiv(columns, JOINED[1]),)](
            *partial, *sums, dweight, dbias, columns, programs, *JOINED, num_warps=WARPS
        )
        tensors = (slope, flat, made, weight.contiguous(), mean, scale, *sums, dx, dresidual)
        backward_kernel[(triton.cdiv(rows, step * STEPS), blocks)](
            *tensors, rows, columns, *strides, dx.stride(0), STEPS, step, block, num_warps=WARPS
        )
    return [shaped(dx, x), dweight, dbias, *([] if dresidual is None else [shaped(dresidual, x)])]


def examples(
    dtype: str,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, float, bool]]:
    kind = getattr(torch, DTYPES[dtype])

    def made(
        x: torch.Tensor, added: bool, relu: bool, parameters: torch.dtype = kind
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, float, bool]:
        weight, bias = (torch.randn(x.shape[1], dtype=parameters) for _ in range(2))
        return x, weight, bias, torch.randn_like(x) if added else None, EPS, relu

    for number, x in enumerate(x for x in settings.examples(kind) if x.ndim == 2 and len(x) > 2):
        yield made(x, number % 2 == 0, number % 3 != 0)
    wide = torch.randn(2, 96, 9, 9, dtype=kind).contiguous(memory_format=torch.channels_last)
    yield made(wide, True, True)
    yield made(wide[:, 16:81], False, True)  # pixels that are not side by side
    yield made(torch.randn(2, 5, 21, 25, dtype=kind), True, True)  # contiguous: copied
    yield made(torch.randn(4, 1, 5, 7, dtype=kind), False, True, torch.float32)
    if dtype == "fp32":
        yield made(torch.randn(300, 20) + 1000, False, False)
        yield made(
            torch.randn(128 * 64 + 5, 33), True, True
        )  # more programs than the second stage joins at once


def typical(
    dtype: str, count: int = 64, device: str = "meta", channels: int = 256, added: bool = True
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, float, bool]:
    """Of ResNet-50: 56 x 56 pixels of 256 channels, 7 x 7 of 2,048."""
    kind, side = getattr(torch, DTYPES[dtype]), min(56, 56 * 256 // channels)
    weight, bias = (torch.empty(channels, dtype=kind, device=device) for _ in range(2))
    x, residual = (
        torch.empty(count, channels, side, side, dtype=kind, device=device, memory_format=torch.channels_last)
        for _ in range(2)
    )
    return x, weight, bias, residual if added else None, EPS, True


def cost(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    residual: torch.Tensor | None = None,
    eps: float = EPS,
    relu: bool = True,
) -> tuple[Cost, ...]:
    n, item, columns = x.numel(), x.element_size(), weight.numel()
    read_weight, added = columns * weight.element_size(), residual is not None
    joined, summed = (
        8 * columns * shares(n // columns, columns, elements)[0] for elements in (STATISTICS, TILE)
    )
    return (
        Cost(n * item + joined, 6 * n),
        Cost(joined + 8 * columns, 2 * joined),
        Cost((2 + added) * n * item + 2 * read_weight + 8 * columns, (4 + added) * n),
        Cost((2 + relu) * n * item + 8 * columns + summed, 4 * n),
        Cost(summed + 8 * columns + 2 * read_weight, summed // 4),
        Cost((3 + relu + added) * n * item + read_weight + 16 * columns, 6 * n),
    )


def builds(dtype: str, target: str = "sm_80", channels: int = 256, added: bool = True) -> list[Build]:
    pointer = POINTER[dtype]
    other = pointer if added else "constexpr"
    places = [
        dict(zip(("ROWS", "BLOCK"), tile(channels, elements), strict=True)) for elements in (STATISTICS, TILE)
    ]
    together = dict(zip(("ROWS", "BLOCK"), JOINED, strict=True))

    def made(
        name: str,
        kernel: object,
        tensors: dict[str, str],
        numbers: tuple[str, ...],
        constexprs: dict[str, object],
    ) -> Build:
        types = {number: "fp32" if number == "eps" else "i32" for number in numbers}
        absent = {tensor: None for tensor, kind in tensors.items() if kind == "constexpr"}
        divisible = (
            *(tensor for tensor in tensors if tensor not in absent),
            *(number for number in numbers if number == "columns" or number.endswith("stride")),
        )
        return Build(
            name,
            kernel,
            {**tensors, **types, **dict.fromkeys(constexprs, "constexpr")},
            {**absent, **constexprs},
            WARPS,
            divisible=divisible,
        )

    def tensors(names: str, **others: str) -> dict[str, str]:
        return {
            name: pointer if name in ("dy", "x", "y", "weight", "bias", "dx", "dweight", "dbias") else "*fp32"
            for name in names.split()
        } | others

    return [
        made(
            "forward_statistics",
            statistics_kernel,
            tensors("x means squares"),
            ("rows", "columns", "x_stride", "each"),
            places[0],
        ),
        made(
            "forward_combine",
            combine_kernel,
            tensors("means squares mean scale"),
            ("rows", "columns", "programs", "each", "eps"),
            together,
        ),
        made(
            "forward",
            forward_kernel,
            tensors("x residual weight bias mean scale y", residual=other),
            ("rows", "columns", "x_stride", "residual_stride", "y_stride"),
            {"RELU": True, "STEPS": STEPS, **places[1]},
        ),
        made(
            "backward_sums",
            sums_kernel,
            tensors("dy x y mean scale partial_weight partial_bias"),
            ("rows", "columns", "dy_stride", "x_stride", "y_stride", "each"),
            places[1],
        ),
        made(
            "backward_combine",
            add_kernel,
            tensors("partial_weight partial_bias sum_weight sum_bias dweight dbias"),
            ("columns", "programs"),
            together,
        ),
        made(
            "backward",
            backward_kernel,
            tensors("dy x y weight mean scale sum_weight sum_bias dx dresidual", dresidual=other),
            ("rows", "columns", "dy_stride", "x_stride", "y_stride", "dx_stride"),
            {"STEPS": STEPS, **places[1]},
        ),
    ]
