"""Layer normalisation of a sum with its residual, over the last dimension.

s = x + residual, y = (s - mean(s)) / sqrt(var(s) + eps) * weight + bias; both are outputs; the
variance is the biased one. x and residual (..., N), weight (N,), bias (N,); fp32, fp16, bf16; s is
rounded to the dtype of x before its norm is taken, as the two operations one after the other do.
Raises Unsupported for N above 8,192, different shapes, other sizes of weight and bias or two dtypes
of them. Ba, Kiros and Hinton, Layer Normalization, https://arxiv.org/abs/1607.06450.

With r = 1 / sqrt(var + eps), h = (s - mean) r and g = dy weight: dx = dresidual = ds + r (g -
mean(g) - h mean(g h)), dweight = sum over rows of dy h, dbias = sum over rows of dy.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from ..contract import Build, Cost, Unsupported, needs_launch
from ..patterns import Pattern
from ..rows import WARP_ELEMENTS, as_matrix, row_build, row_tiling, split_rows
from . import add_rms_norm
from .layer_norm import FUSED

# The default of torch.nn.LayerNorm.
EPS = 1e-5
OUTPUTS = 2
RETURNS = ("y", "s", "mean", "scale")
GRADIENTS = ("x", "residual", "weight", "bias")
SETTINGS = ({"columns": 64}, {"columns": 768}, {"columns": 4096}, {"columns": 8192})


def reference(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = EPS
) -> tuple[torch.Tensor, torch.Tensor]:
    s = x + residual
    return torch.nn.functional.layer_norm(s, (x.shape[-1],), weight, bias, eps), s


def results(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = EPS
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    y, s = reference(x, residual, weight, bias, eps)
    variance, mean = torch.var_mean(s.float(), -1, correction=0)
    return y, s, mean.flatten(), (variance + eps).rsqrt().flatten()


def in_models(
    x: torch.Tensor,
    residual: torch.Tensor,
    shape: tuple[int, ...],
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    s = x + residual
    return torch.nn.functional.layer_norm(s, shape, weight, bias, eps), s


PATTERNS = (Pattern(in_models),)


@triton.jit(do_not_specialize=["rows"])
def forward_kernel(
    x,
    residual,
    weight,
    bias,
    y,
    s,
    mean,
    scale,
    rows,
    columns,
    x_stride,
    residual_stride,
    y_stride,
    eps,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # (ROWS,)
    column = tl.arange(0, BLOCK)  # (BLOCK,)
    inside = (row < rows)[:, None] & (column < columns)[None, :]  # (ROWS, BLOCK)
    value = tl.load(x + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
    added = tl.load(residual + row[:, None] * residual_stride + column[None, :], mask=inside, other=0.0)
    value += added.to(tl.float32)
    rounded = value.to(s.dtype.element_ty)
    tl.store(s + row[:, None] * y_stride + column[None, :], rounded, mask=inside)
    value = rounded.to(tl.float32)
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
    ds,
    s,
    weight,
    mean,
    scale,
    dx,
    partial_weight,
    partial_bias,
    rows,
    columns,
    dy_stride,
    ds_stride,
    s_stride,
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
    for start in range(0, each, ROWS):
        row = program * each + start + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (column < columns)[None, :]
        value = tl.load(s + row[:, None] * s_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        slope = tl.load(dy + row[:, None] * dy_stride + column[None, :], mask=inside, other=0.0)
        slope = slope.to(tl.float32)
        m = tl.load(mean + row, mask=row < rows, other=0.0)
        r = tl.load(scale + row, mask=row < rows, other=0.0)
        hat = tl.where(inside, (value - m[:, None]) * r[:, None], 0.0)
        g = slope * w[None, :]
        of_rows = (tl.sum(g, 1) / columns)[:, None] + hat * (tl.sum(g * hat, 1) / columns)[:, None]
        total_weight += tl.sum(slope * hat, 0)
        total_bias += tl.sum(slope, 0)
        beside = tl.load(
            ds + row[:, None] * ds_stride + column[None, :], mask=inside, other=0.0
        )  # last: held over the sums it spills at 8,192
        tl.store(
            dx + row[:, None] * dx_stride + column[None, :],
            beside.to(tl.float32) + r[:, None] * (g - of_rows),
            mask=inside,
        )
    tl.store(partial_weight + program * columns + column, total_weight, mask=column < columns)
    tl.store(partial_bias + program * columns + column, total_bias, mask=column < columns)


def check(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> None:
    if bias.shape != weight.shape or bias.dtype != weight.dtype:
        raise Unsupported(
            f"weight {weight.dtype}{tuple(weight.shape)} and bias {bias.dtype}{tuple(bias.shape)}; expected"
            " one size and dtype"
        )
    add_rms_norm.check(x, residual, weight)


def forward(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = EPS
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns y, s, and of each row its mean and its scale r (rows,)."""
    check(x, residual, weight, bias)
    flat, other = as_matrix(x, "x"), as_matrix(residual, "residual")
    y, s = (torch.empty_like(flat, memory_format=torch.contiguous_format) for _ in range(2))
    mean, scale = (torch.empty(flat.shape[0], dtype=torch.float32, device=x.device) for _ in range(2))
    if needs_launch(flat):
        rows, block, warps = row_tiling(flat.shape[1])
        tensors = (flat, other, weight.contiguous(), bias.contiguous(), y, s, mean, scale)
        strides = (flat.stride(0), other.stride(0), y.stride(0))
        forward_kernel[(triton.cdiv(len(flat), rows),)](
            *tensors, *flat.shape, *strides, eps, rows, block, num_warps=warps
        )
    return y.view(x.shape), s.view(x.shape), mean, scale


def backward(
    dy: torch.Tensor,
    ds: torch.Tensor,
    weight: torch.Tensor,
    s: torch.Tensor,
    mean: torch.Tensor,
    scale: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns dx, dresidual (a copy of it), dweight and dbias."""
    flat, slope, beside = as_matrix(s, "s"), as_matrix(dy, "dy"), as_matrix(ds, "ds")
    dx = torch.empty_like(flat, memory_format=torch.contiguous_format)
    if not needs_launch(flat):
        dresidual = torch.empty_like(dx)
        return dx.view(s.shape), dresidual.view(s.shape), torch.zeros_like(weight), torch.zeros_like(weight)
    rows, block, warps = row_tiling(flat.shape[1], WARP_ELEMENTS)
    programs, each = split_rows(len(flat), rows)
    partial = torch.empty(2, programs, flat.shape[1], dtype=torch.float32, device=s.device)
    tensors = (slope, beside, flat, weight.contiguous(), mean, scale, dx, *partial)
    strides = (slope.stride(0), beside.stride(0), flat.stride(0), dx.stride(0))
    backward_kernel[(programs,)](
        *tensors, *flat.shape, *strides, each, rows, block, num_warps=warps, enable_fp_fusion=FUSED
    )
    dweight, dbias = (sums.sum(0).to(weight.dtype) for sums in partial)
    return dx.view(s.shape), dx.clone().view(s.shape), dweight, dbias


def examples(dtype: str) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
    return (
        (x, residual, weight, torch.randn_like(weight))
        for x, residual, weight in add_rms_norm.examples(dtype)
    )


def typical(
    dtype: str, count: int = 16384, device: str = "meta", columns: int = 1024
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    x, residual, weight = add_rms_norm.typical(dtype, count, device, columns)
    return x, residual, weight, torch.empty_like(weight)


def cost(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> tuple[Cost, Cost]:
    n, rows, item = x.numel(), x.numel() // max(1, x.shape[-1]), x.element_size()
    programs, _ = split_rows(rows, row_tiling(x.shape[-1]).rows)
    read_weight = weight.numel() * weight.element_size()
    return (
        Cost(4 * n * item + 2 * read_weight + 8 * rows, 9 * n),
        Cost(4 * n * item + read_weight + 8 * rows + 8 * programs * weight.numel(), 16 * n),
    )


def builds(dtype: str, target: str = "sm_80", columns: int = 1024) -> list[Build]:
    tiling, summing = row_tiling(columns), row_tiling(columns, WARP_ELEMENTS)
    written = ("x", "residual", "weight", "bias", "y", "s", "mean", "scale")
    gradients = ("dy", "ds", "s", "weight", "mean", "scale", "dx", "partial_weight", "partial_bias")
    return [
        row_build("forward", forward_kernel, dtype, tiling, written, ("x", "residual", "y"), {"eps": "fp32"}),
        row_build(
            "backward",
            backward_kernel,
            dtype,
            summing,
            gradients,
            ("dy", "ds", "s", "dx"),
            {"each": "i32"},
            FUSED,
        ),
    ]
