"""Batch normalisation in training, with an optional residual and ReLU after it.

y = act((x - mean) r weight + bias + residual) with r = 1 / sqrt(var + eps); mean and biased
variance of each channel over all else; act is ReLU or nothing. x and residual (N, C, H, W) or (M,
C), weight and bias (C,); fp32, fp16, bf16, weight and bias in one dtype of their own; y as x. It is
for memory in which the channels of a pixel lie side by side (channels_last): another layout is
copied first, and y is channels_last whatever x is. Raises Unsupported for fewer than two values a
channel and other shapes or dtypes. Ioffe and Szegedy, Batch Normalization,
https://arxiv.org/abs/1502.03167.

Running statistics are the caller's: the mean is returned, and the biased variance is 1 / scale^2 -
eps. Programs keep counts, means and sums of squares around these, which are joined without
cancellation (Chan, Golub and LeVeque, Algorithms for computing the sample variance, 1983). With h =
(x - mean) r, g = dy where y > 0, and M values a channel: dbias = sum(g), dweight = sum(g h), dx =
weight r (g - dbias / M - h dweight / M), dresidual = g.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from ..contract import DTYPES, POINTER, Build, Cost, Unsupported, needs_launch
from ..patterns import Pattern
from ..rows import as_matrix, example_matrices

# The default of torch.nn.BatchNorm2d.
EPS = 1e-5
RETURNS = ("y", "mean", "scale")
GRADIENTS = ("x", "weight", "bias", "residual")
AUTOCAST = "none"
SETTINGS = ({"channels": 64}, {"channels": 2048}, {"added": False}, {"channels": 64, "added": False})
# Channels of a program: a line of 128 bytes of bf16.
CHANNELS = 64
# Programs of a reduction: half of what fills an H100 with 8 warps each, so that the second stage
# stays short.
PROGRAMS = 512
# Eight elements of a tile of TILE for each thread.
WARPS = 8
# Tiles of a program that share the loads of what belongs to a channel.
STEPS = 4
# Elements of a tile in the reduction to statistics, which holds two sums for each.
STATISTICS = 4096
# Elements of a tile in the other kernels, which have as many inputs more.
TILE = 2048
# (programs, channels) whose partial sums the second stage of a reduction joins at once.
JOINED = (128, 16)
# Tensors in the dtype of the operation; all others are fp32.
IN_DTYPE = frozenset({"dy", "x", "y", "weight", "bias", "residual", "dx", "dweight", "dbias", "dresidual"})


class BatchNormInputs(NamedTuple):
    """What the operation takes, in the order of forward's parameters."""

    # (N, C, H, W) or (M, C).
    x: torch.Tensor
    # (C,).
    weight: torch.Tensor
    # (C,).
    bias: torch.Tensor
    # As x, or None where nothing is added.
    residual: torch.Tensor | None
    # Added to the variance.
    eps: float
    # Whether a ReLU follows.
    relu: bool


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
    but_channels = [dimension for dimension in range(x.ndim) if dimension != 1]
    variance, mean = torch.var_mean(x.float(), but_channels, correction=0)
    y = reference(x, weight, bias, residual, eps, relu)
    if x.ndim == 4:
        y = y.contiguous(memory_format=torch.channels_last)
    return y, mean, (variance + eps).rsqrt()


def with_residual(x: torch.Tensor, norm: torch.nn.BatchNorm2d, residual: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.relu(norm(x) + residual)


def with_relu(x: torch.Tensor, norm: torch.nn.BatchNorm2d) -> torch.Tensor:
    return torch.nn.functional.relu(norm(x))


def alone(x: torch.Tensor, norm: torch.nn.BatchNorm2d) -> torch.Tensor:
    y: torch.Tensor = norm(x)
    return y


def inputs_in_training(
    relu: bool, x: torch.Tensor, norm: torch.nn.BatchNorm2d, residual: torch.Tensor | None = None
) -> tuple[object, ...] | None:
    """Returns the operation's inputs, or None in evaluation, which aten does.

    Then the norm is an affine map, which a compiler folds into the convolution before it. Raises
    Unsupported for a norm without a weight.
    """
    if not norm.training:
        return None
    if norm.weight is None:
        raise Unsupported("BatchNorm2d has no weight; make it with affine=True")
    return x, norm.weight, norm.bias, residual, norm.eps, relu


def update_statistics(arguments: tuple[Any, ...], results: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Updates the module's running statistics, with the unbiased variance, as torch does.

    Returns y. The first two arguments are x and the module; the results are those of forward.
    """
    x: torch.Tensor = arguments[0]
    norm: Any = arguments[1]  # a BatchNorm2d, whose buffers have no types
    y, mean, scale = results
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
    Pattern(with_residual, partial(inputs_in_training, True), update_statistics),
    Pattern(with_relu, partial(inputs_in_training, True), update_statistics),
    Pattern(alone, partial(inputs_in_training, False), update_statistics),
)


@triton.jit
def joined(count, mean, square, rows):
    """The mean and the sum of squares around it (BLOCK,) of the union of K sets, from their counts
    (K,), means and sums of squares around these (K, BLOCK).

    The mean is taken twice, the second time around the first one, which rounds less.
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
    steps = 0.0
    for start in range(0, each, ROWS):
        row = program * each + start + tl.arange(0, ROWS)  # (ROWS,)
        inside = (row < rows)[:, None] & (column < columns)[None, :]
        value = tl.load(x + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        steps += 1.0
        away = tl.where(inside, value - mean, 0.0)
        mean += away * (1.0 / steps)
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
    """Returns rows and channels that a program takes at once, for tiles of so many elements."""
    block = min(CHANNELS, triton.next_power_of_2(columns))
    return elements // block, block


def share_rows(rows: int, columns: int, elements: int) -> tuple[int, int]:
    """Returns how many programs share the rows of one block of channels, and how many rows each
    takes (whole tiles).
    """
    step, block = tile(columns, elements)
    each = triton.cdiv(triton.cdiv(rows, max(1, PROGRAMS // triton.cdiv(columns, block))), step) * step
    return triton.cdiv(rows, each), each


def pixel_matrix(x: torch.Tensor, name: str) -> torch.Tensor:
    """x as (M, C), a row for each pixel; copied only where the channels do not lie side by side."""
    return as_matrix(x.movedim(1, -1), name)


def shaped(flat: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The matrix (M, C) in the shape of x, as a view that is channels_last."""
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
        inputs = (
            f"x {tuple(x.shape)}, weight {weight.dtype}{tuple(weight.shape)}, bias"
            f" {bias.dtype}{tuple(bias.shape)}"
        )
        raise Unsupported(f"{inputs}; expected (N, C, H, W) or (M, C), and weight and bias (C,) of one dtype")
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
    """Returns y, and of each channel its mean and its scale r (C,)."""
    check(x, weight, bias, residual)
    flat = pixel_matrix(x, "x")
    other = None if residual is None else pixel_matrix(residual, "residual")
    y = torch.empty_like(flat, memory_format=torch.contiguous_format)
    mean, scale = (torch.empty(x.shape[1], dtype=torch.float32, device=x.device) for _ in range(2))
    if needs_launch(flat):
        rows, columns = flat.shape
        programs, each = share_rows(rows, columns, STATISTICS)
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
    """Returns dx, dweight, dbias, and dresidual if there was a residual.

    Nothing else is asked of `residual`, and of y only where a ReLU followed.
    """
    flat, slope = pixel_matrix(x, "x"), pixel_matrix(dy, "dy")
    output = pixel_matrix(y, "y") if relu else None
    dx = torch.empty_like(flat, memory_format=torch.contiguous_format)
    dresidual = None if residual is None else torch.empty_like(dx)
    dweight, dbias = (torch.empty_like(weight, memory_format=torch.contiguous_format) for _ in range(2))
    if needs_launch(flat):
        rows, columns = flat.shape
        programs, each = share_rows(rows, columns, TILE)
        step, block = tile(columns, TILE)
        blocks = triton.cdiv(columns, block)
        partial = torch.empty(2, programs, columns, dtype=torch.float32, device=x.device)
        sums = torch.empty(2, columns, dtype=torch.float32, device=x.device)
        strides = (slope.stride(0), flat.stride(0), 0 if output is None else output.stride(0))
        sums_kernel[(programs, blocks)](
            *(slope, flat, output, mean, scale, *partial),
            *(rows, columns, *strides, each, step, block),
            num_warps=WARPS,
        )
        add_kernel[(triton.cdiv(columns, JOINED[1]),)](
            *partial, *sums, dweight, dbias, columns, programs, *JOINED, num_warps=WARPS
        )
        tensors = (slope, flat, output, weight.contiguous(), mean, scale, *sums, dx, dresidual)
        backward_kernel[(triton.cdiv(rows, step * STEPS), blocks)](
            *tensors, rows, columns, *strides, dx.stride(0), STEPS, step, block, num_warps=WARPS
        )
    return [shaped(dx, x), dweight, dbias, *([] if dresidual is None else [shaped(dresidual, x)])]


def examples(dtype: str) -> Iterator[BatchNormInputs]:
    kind = getattr(torch, DTYPES[dtype])

    def example(x: torch.Tensor, added: bool, relu: bool, parameters: torch.dtype = kind) -> BatchNormInputs:
        weight, bias = (torch.randn(x.shape[1], dtype=parameters) for _ in range(2))
        return BatchNormInputs(x, weight, bias, torch.randn_like(x) if added else None, EPS, relu)

    for number, x in enumerate(x for x in example_matrices(kind) if x.ndim == 2 and len(x) > 2):
        yield example(x, number % 2 == 0, number % 3 != 0)
    wide = torch.randn(2, 96, 9, 9, dtype=kind).contiguous(memory_format=torch.channels_last)
    yield example(wide, True, True)
    yield example(wide[:, 16:81], False, True)  # pixels that are not side by side
    yield example(torch.randn(2, 5, 21, 25, dtype=kind), True, True)  # contiguous: copied
    yield example(torch.randn(4, 1, 5, 7, dtype=kind), False, True, torch.float32)
    if dtype == "fp32":
        yield example(torch.randn(300, 20) + 1000, False, False)
        # More programs than the second stage joins at once.
        yield example(torch.randn(128 * 64 + 5, 33), True, True)


def typical(
    dtype: str, count: int = 64, device: str = "meta", channels: int = 256, added: bool = True
) -> BatchNormInputs:
    """As in ResNet-50: 56 x 56 pixels of 256 channels, 7 x 7 of 2,048."""
    kind, side = getattr(torch, DTYPES[dtype]), min(56, 56 * 256 // channels)
    weight, bias = (torch.empty(channels, dtype=kind, device=device) for _ in range(2))
    x, residual = (
        torch.empty(count, channels, side, side, dtype=kind, device=device, memory_format=torch.channels_last)
        for _ in range(2)
    )
    return BatchNormInputs(x, weight, bias, residual if added else None, EPS, relu=True)


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
        8 * columns * share_rows(n // columns, columns, elements)[0] for elements in (STATISTICS, TILE)
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
    return [
        *forward_builds(dtype, channels, added),
        *backward_builds(dtype, channels, added),
    ]


def tile_constexprs(channels: int, elements: int) -> dict[str, object]:
    """ROWS and BLOCK of a kernel with tiles of so many elements."""
    return dict(zip(("ROWS", "BLOCK"), tile(channels, elements), strict=True))


def build(
    name: str,
    kernel: Any,
    dtype: str,
    tensors: str,
    numbers: tuple[str, ...],
    constexprs: dict[str, object],
    absent: tuple[str, ...] = (),
) -> Build:
    """The build of one kernel, whose arguments are the tensors, the numbers and the constexprs.

    Tensors that are `absent` are None, which is a constexpr too.
    """
    types = {
        tensor: POINTER[dtype] if tensor in IN_DTYPE else "*fp32" for tensor in tensors.split()
    } | dict.fromkeys(absent, "constexpr")
    signature = {
        **types,
        **{number: "fp32" if number == "eps" else "i32" for number in numbers},
        **dict.fromkeys(constexprs, "constexpr"),
    }
    divisible = (
        *(tensor for tensor in types if tensor not in absent),
        *(number for number in numbers if number == "columns" or number.endswith("stride")),
    )
    return Build(name, kernel, signature, {**dict.fromkeys(absent), **constexprs}, WARPS, divisible=divisible)


def forward_builds(dtype: str, channels: int, added: bool) -> list[Build]:
    return [
        build(
            "forward_statistics",
            statistics_kernel,
            dtype,
            "x means squares",
            ("rows", "columns", "x_stride", "each"),
            tile_constexprs(channels, STATISTICS),
        ),
        build(
            "forward_combine",
            combine_kernel,
            dtype,
            "means squares mean scale",
            ("rows", "columns", "programs", "each", "eps"),
            dict(zip(("ROWS", "BLOCK"), JOINED, strict=True)),
        ),
        build(
            "forward",
            forward_kernel,
            dtype,
            "x residual weight bias mean scale y",
            ("rows", "columns", "x_stride", "residual_stride", "y_stride"),
            {"RELU": True, "STEPS": STEPS, **tile_constexprs(channels, TILE)},
            () if added else ("residual",),
        ),
    ]


def backward_builds(dtype: str, channels: int, added: bool) -> list[Build]:
    return [
        build(
            "backward_sums",
            sums_kernel,
            dtype,
            "dy x y mean scale partial_weight partial_bias",
            ("rows", "columns", "dy_stride", "x_stride", "y_stride", "each"),
            tile_constexprs(channels, TILE),
        ),
        build(
            "backward_combine",
            add_kernel,
            dtype,
            "partial_weight partial_bias sum_weight sum_bias dweight dbias",
            ("columns", "programs"),
            dict(zip(("ROWS", "BLOCK"), JOINED, strict=True)),
        ),
        build(
            "backward",
            backward_kernel,
            dtype,
            "dy x y weight mean scale sum_weight sum_bias dx dresidual",
            ("rows", "columns", "dy_stride", "x_stride", "y_stride", "dx_stride"),
            {"STEPS": STEPS, **tile_constexprs(channels, TILE)},
            () if added else ("dresidual",),
        ),
    ]
