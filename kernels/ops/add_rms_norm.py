"""RMS normalisation of a sum with its residual, over the last dimension.

s = x + residual, y = s / sqrt(mean(s^2) + eps) * weight: both are outputs, and the sum is read once
instead of three times. x and residual (..., N), weight (N,); fp32, fp16, bf16; s is rounded to the
dtype of x before its norm is taken, as the two operations one after the other do. Raises
Unsupported for N above 8,192, different shapes or another size of weight. Zhang and Sennrich, Root
Mean Square Layer Normalization, https://arxiv.org/abs/1910.07467.

With r = 1 / sqrt(mean(s^2) + eps), h = s r and g = dy weight: dx = dresidual = ds + r (g - h mean(g
h)), dweight = sum over rows of dy h.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from ..contract import DTYPES, Build, Cost, Unsupported, needs_launch
from ..patterns import Pattern
from ..rows import WARP_ELEMENTS, as_matrix, check_length, example_matrices, row_build, row_tiling, split_rows

# The default of Hugging Face's T5 and Llama; torch.nn.RMSNorm has only the eps of a dtype.
EPS = 1e-6
OUTPUTS = 2
RETURNS = ("y", "s", "scale")
GRADIENTS = ("x", "residual", "weight")
SETTINGS = ({"columns": 64}, {"columns": 768}, {"columns": 4096}, {"columns": 8192})


def reference(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float = EPS
) -> tuple[torch.Tensor, torch.Tensor]:
    s = x + residual
    return torch.nn.functional.rms_norm(s, (x.shape[-1],), weight, eps), s


def results(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float = EPS
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    y, s = reference(x, residual, weight, eps)
    return y, s, (s.float().square().mean(-1) + eps).rsqrt().flatten()


def in_models(
    x: torch.Tensor, residual: torch.Tensor, shape: tuple[int, ...], weight: torch.Tensor, eps: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    s = x + residual
    return torch.nn.functional.rms_norm(s, shape, weight, eps), s


def inputs_in_models(
    x: torch.Tensor, residual: torch.Tensor, shape: tuple[int, ...], weight: torch.Tensor, eps: float | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    return x, residual, weight, torch.finfo(torch.float32).eps if eps is None else eps


PATTERNS = (Pattern(in_models, inputs_in_models),)


@triton.jit(do_not_specialize=["rows"])
def forward_kernel(
    x,
    residual,
    weight,
    y,
    s,
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
    r = 1.0 / tl.sqrt(tl.sum(value * value, 1) / columns + eps)  # (ROWS,)
    w = tl.load(weight + column, mask=column < columns, other=0.0).to(tl.float32)
    tl.store(y + row[:, None] * y_stride + column[None, :], value * r[:, None] * w[None, :], mask=inside)
    tl.store(scale + row, r, mask=row < rows)


@triton.jit(do_not_specialize=["rows", "each"])
def backward_kernel(
    dy,
    ds,
    s,
    weight,
    scale,
    dx,
    partial,
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
    """Each program takes `each` rows and leaves one row of partial sums of dweight."""
    program = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    w = tl.load(weight + column, mask=column < columns, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, each, ROWS):
        row = program * each + start + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (column < columns)[None, :]
        value = tl.load(s + row[:, None] * s_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        slope = tl.load(dy + row[:, None] * dy_stride + column[None, :], mask=inside, other=0.0)
        slope = slope.to(tl.float32)
        beside = tl.load(ds + row[:, None] * ds_stride + column[None, :], mask=inside, other=0.0)
        beside = beside.to(tl.float32)
        r = tl.load(scale + row, mask=row < rows, other=0.0)
        hat = value * r[:, None]
        g = slope * w[None, :]
        tl.store(
            dx + row[:, None] * dx_stride + column[None, :],
            beside + r[:, None] * (g - hat * (tl.sum(g * hat, 1) / columns)[:, None]),
            mask=inside,
        )
        total += tl.sum(slope * hat, 0)
    tl.store(partial + program * columns + column, total, mask=column < columns)


def check(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> None:
    if weight.shape != x.shape[-1:] or residual.shape != x.shape or residual.dtype != x.dtype:
        inputs = (
            f"x {x.dtype}{tuple(x.shape)}, residual {residual.dtype}{tuple(residual.shape)}, weight"
            f" {tuple(weight.shape)}"
        )
        raise Unsupported(
            f"{inputs}; expected x and residual of one shape and dtype, and weight ({x.shape[-1]},)"
        )
    check_length(x.shape[-1])


def forward(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float = EPS
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns y, s and the scale r of each row (rows,)."""
    check(x, residual, weight)
    flat, other = as_matrix(x, "x"), as_matrix(residual, "residual")
    y, s = (torch.empty_like(flat, memory_format=torch.contiguous_format) for _ in range(2))
    scale = torch.empty(flat.shape[0], dtype=torch.float32, device=x.device)
    if needs_launch(flat):
        rows, block, warps = row_tiling(flat.shape[1])
        tensors = (flat, other, weight.contiguous(), y, s, scale)
        strides = (flat.stride(0), other.stride(0), y.stride(0))
        forward_kernel[(triton.cdiv(len(flat), rows),)](
            *tensors, *flat.shape, *strides, eps, rows, block, num_warps=warps
        )
    return y.view(x.shape), s.view(x.shape), scale


def backward(
    dy: torch.Tensor, ds: torch.Tensor, weight: torch.Tensor, s: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns dx, dresidual (a copy of it) and dweight."""
    flat, slope, beside = as_matrix(s, "s"), as_matrix(dy, "dy"), as_matrix(ds, "ds")
    dx = torch.empty_like(flat, memory_format=torch.contiguous_format)
    if not needs_launch(flat):
        return dx.view(s.shape), torch.empty_like(dx).view(s.shape), torch.zeros_like(weight)
    rows, block, warps = row_tiling(flat.shape[1], WARP_ELEMENTS)
    programs, each = split_rows(len(flat), rows)
    partial = torch.empty(programs, flat.shape[1], dtype=torch.float32, device=s.device)
    tensors = (slope, beside, flat, weight.contiguous(), scale, dx, partial)
    strides = (slope.stride(0), beside.stride(0), flat.stride(0), dx.stride(0))
    backward_kernel[(programs,)](*tensors, *flat.shape, *strides, each, rows, block, num_warps=warps)
    return dx.view(s.shape), dx.clone().view(s.shape), partial.sum(0).to(weight.dtype)


def examples(dtype: str) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    kind = getattr(torch, DTYPES[dtype])
    return (
        (x, torch.randn(x.shape, dtype=kind), torch.randn(x.shape[-1], dtype=kind))
        for x in example_matrices(kind)
    )


def typical(
    dtype: str, count: int = 16384, device: str = "meta", columns: int = 1024
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    kind = getattr(torch, DTYPES[dtype])
    x, residual, weight = (
        torch.empty(shape, dtype=kind, device=device)
        for shape in ((count, columns), (count, columns), (columns,))
    )
    return x, residual, weight


def cost(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> tuple[Cost, Cost]:
    n, rows, item = x.numel(), x.numel() // max(1, x.shape[-1]), x.element_size()
    programs, _ = split_rows(rows, row_tiling(x.shape[-1]).rows)
    read_weight = weight.numel() * item
    return (
        Cost(4 * n * item + read_weight + 4 * rows, 6 * n),
        Cost(4 * n * item + read_weight + 4 * rows + 4 * programs * weight.numel(), 12 * n),
    )


def builds(dtype: str, target: str = "sm_80", columns: int = 1024) -> list[Build]:
    tiling, summing = row_tiling(columns), row_tiling(columns, WARP_ELEMENTS)
    written = ("x", "residual", "weight", "y", "s", "scale")
    gradients = ("dy", "ds", "s", "weight", "scale", "dx", "partial")
    return [
        row_build("forward", forward_kernel, dtype, tiling, written, ("x", "residual", "y"), {"eps": "fp32"}),
        row_build(
            "backward", backward_kernel, dtype, summing, gradients, ("dy", "ds", "s", "dx"), {"each": "i32"}
        ),
    ]
