"""Layer normalisation over the last dimension.

y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias; the variance is the biased one. x (..., N),
weight (N,), bias (N,); fp32, fp16, bf16; y as x. Raises Unsupported for N above 8,192 or other
sizes of weight and bias. Ba, Kiros and Hinton, Layer Normalization,
https://arxiv.org/abs/1607.06450.

With r = 1 / sqrt(var + eps), h = (x - mean) r and g = dy weight: dx = r (g - mean(g) - h mean(g
h)), dweight = sum over rows of dy h, dbias = sum over rows of dy.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from ..contract import DTYPES, Build, Cost, Unsupported, needs_launch
from ..patterns import Pattern
from ..rows import WARP_ELEMENTS, as_matrix, check_length, example_matrices, row_build, row_tiling, split_rows

# The default of torch.nn.LayerNorm.
EPS = 1e-5
RETURNS = ("y", "mean", "scale")
GRADIENTS = ("x", "weight", "bias")
AUTOCAST = "fp32"
# Of the backward kernel: for a row of one element dx is dy w - mean(dy w), which is exactly 0 only
# where the product is rounded before it is subtracted. Fused, what rounding it cost is left, times
# 1 / sqrt(eps) (measured on an H200: 5e-6).
FUSED = False
SETTINGS = ({"columns": 64}, {"columns": 768}, {"columns": 4096}, {"columns": 8192})


def reference(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = EPS) -> torch.Tensor:
    return torch.nn.functional.layer_norm(x, (x.shape[-1],), weight, bias, eps)


def results(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = EPS
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    variance, mean = torch.var_mean(x.float(), -1, correction=0)
    return reference(x, weight, bias, eps), mean.flatten(), (variance + eps).rsqrt().flatten()


def in_models(
    x: torch.Tensor, shape: tuple[int, ...], weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> torch.Tensor:
    return torch.nn.functional.layer_norm(x, shape, weight, bias, eps)


PATTERNS = (Pattern(in_models),)


@triton.jit(do_not_specialize=["rows"])
def forward_kernel(
    x,
    weight,
    bias,
    y,
    mean,
    scale,
    rows,
    columns,
    x_stride,
    y_stride,
    eps,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # (ROWS,)
    column = tl.arange(0, BLOCK)  # (BLOCK,)
    inside = (row < rows)[:, None] & (column < columns)[None, :]  # (ROWS, BLOCK)
    value = tl.load(x + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
    m = tl.sum(value, 1) / columns  # (ROWS,)
    centred = tl.where(inside, value - m[:, None], 0.0)
    r = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / columns + eps)
    w = tl.load(weight + column, mask=column < columns, other=0.0).to(tl.float32)
    b = tl.load(bias + column, mask=column < columns, other=0.0).to(tl.float32)
    tl.store(
        y + row[:, None] * y_stride + column[None, :],
        centred * r[:, None] * w[None, :] + b[None, :],
        mask=inside,
    )
    tl.store(mean + row, m, mask=row < rows)
    tl.store(scale + row, r, mask=row < rows)


@triton.jit(do_not_specialize=["rows", "each"])
def backward_kernel(
    dy,
    x,
    weight,
    mean,
    scale,
    dx,
    partial_weight,
    partial_bias,
    rows,
    columns,
    dy_stride,
    x_stride,
    dx_stride,
    each,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Each program takes `each` rows and leaves one row of partial sums of dweight and of dbias."""
    program = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    w = tl.load(weight + column, mask=column < columns, other=0.0).to(tl.float32)
    total_weight = tl.zeros((BLOCK,), tl.float32)
    total_bias = tl.zeros((BLOCK,), tl.float32)
    first = program * each
    for start in range(0, each, ROWS):
        row = first + start + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (column < columns)[None, :]
        value = tl.load(x + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        slope = tl.load(dy + row[:, None] * dy_stride + column[None, :], mask=inside, other=0.0)
        slope = slope.to(tl.float32)
        m = tl.load(mean + row, mask=row < rows, other=0.0)
        r = tl.load(scale + row, mask=row < rows, other=0.0)
        hat = tl.where(inside, (value - m[:, None]) * r[:, None], 0.0)
        g = slope * w[None, :]
        of_rows = (tl.sum(g, 1) / columns)[:, None] + hat * (tl.sum(g * hat, 1) / columns)[:, None]
        tl.store(dx + row[:, None] * dx_stride + column[None, :], r[:, None] * (g - of_rows), mask=inside)
        total_weight += tl.sum(slope * hat, 0)
        total_bias += tl.sum(slope, 0)
    tl.store(partial_weight + program * columns + column, total_weight, mask=column < columns)
    tl.store(partial_bias + program * columns + column, total_bias, mask=column < columns)


def check(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> None:
    if weight.shape != x.shape[-1:] or bias.shape != weight.shape:
        raise Unsupported(
            f"weight {tuple(weight.shape)} and bias {tuple(bias.shape)} for x {tuple(x.shape)}; expected"
            f" ({x.shape[-1]},)"
        )
    check_length(x.shape[-1])


def forward(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = EPS
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns y, and of each row its mean and its scale r (rows,)."""
    check(x, weight, bias)
    flat = as_matrix(x, "x")
    y = torch.empty_like(flat, memory_format=torch.contiguous_format)
    mean, scale = (torch.empty(flat.shape[0], dtype=torch.float32, device=x.device) for _ in range(2))
    if needs_launch(flat):
        rows, block, warps = row_tiling(flat.shape[1])
        tensors = (flat, weight.contiguous(), bias.contiguous(), y, mean, scale)
        forward_kernel[(triton.cdiv(len(flat), rows),)](
            *tensors, *flat.shape, flat.stride(0), y.stride(0), eps, rows, block, num_warps=warps
        )
    return y.view(x.shape), mean, scale


def backward(
    dy: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    mean: torch.Tensor,
    scale: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns dx, dweight and dbias."""
    flat, slope = as_matrix(x, "x"), as_matrix(dy, "dy")
    dx = torch.empty_like(flat, memory_format=torch.contiguous_format)
    if not needs_launch(flat):
        return dx.view(x.shape), torch.zeros_like(weight), torch.zeros_like(bias)
    rows, block, warps = row_tiling(flat.shape[1], WARP_ELEMENTS)
    programs, each = split_rows(len(flat), rows)
    partial = torch.empty(2, programs, flat.shape[1], dtype=torch.float32, device=x.device)
    tensors = (slope, flat, weight.contiguous(), mean, scale, dx, *partial)
    strides = (slope.stride(0), flat.stride(0), dx.stride(0))
    backward_kernel[(programs,)](
        *tensors, *flat.shape, *strides, each, rows, block, num_warps=warps, enable_fp_fusion=FUSED
    )
    return dx.view(x.shape), partial[0].sum(0).to(weight.dtype), partial[1].sum(0).to(bias.dtype)


def examples(dtype: str) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    kind = getattr(torch, DTYPES[dtype])
    return (
        (x, torch.randn(x.shape[-1], dtype=kind), torch.randn(x.shape[-1], dtype=kind))
        for x in example_matrices(kind)
    )


def typical(
    dtype: str, count: int = 16384, device: str = "meta", columns: int = 1024
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    kind = getattr(torch, DTYPES[dtype])
    x, weight, bias = (
        torch.empty(shape, dtype=kind, device=device) for shape in ((count, columns), (columns,), (columns,))
    )
    return x, weight, bias


def cost(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> tuple[Cost, Cost]:
    n, rows, item = x.numel(), x.numel() // max(1, x.shape[-1]), x.element_size()
    programs, _ = split_rows(rows, row_tiling(x.shape[-1]).rows)
    columns = weight.numel()
    return (
        Cost(2 * n * item + 2 * columns * item + 8 * rows, 8 * n),
        Cost(3 * n * item + columns * item + 8 * rows + 8 * programs * columns, 15 * n),
    )


def builds(dtype: str, target: str = "sm_80", columns: int = 1024) -> list[Build]:
    tiling, summing = row_tiling(columns), row_tiling(columns, WARP_ELEMENTS)
    written = ("x", "weight", "bias", "y", "mean", "scale")
    gradients = ("dy", "x", "weight", "mean", "scale", "dx", "partial_weight", "partial_bias")
    return [
        row_build("forward", forward_kernel, dtype, tiling, written, ("x", "y"), {"eps": "fp32"}),
        row_build(
            "backward", backward_kernel, dtype, summing, gradients, ("dy", "x", "dx"), {"each": "i32"}, FUSED
        ),
    ]
