"""The exact GELU of a sum with a bias along the last dimension.

y = u (1 + erf(u / sqrt(2))) / 2 with u = x + bias. x (..., N), bias (N,); fp32, fp16, bf16; y as x;
any N. Raises Unsupported for another size of bias. Hendrycks and Gimpel, Gaussian Error Linear
Units, https://arxiv.org/abs/1606.08415. Nothing is saved: dx = dy (Phi(u) + u phi(u)) is computed
again from x and bias, dbias = sum over rows of dx.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from ..contract import DTYPES, Build, Cost, Unsupported, needs_launch
from ..patterns import Pattern
from ..rows import Tiling, as_matrix, example_matrices, row_build, split_rows

# Of a program's tile: with several rows the sum over them crosses warps in each step of a loop, and
# a tile of 4 x 256 took 3.7 times as long backward on an H200 (docs/results/h200.md).
ROWS = 1
# Columns: 1,024 bytes of bf16 side by side.
BLOCK = 512
# Eight elements a thread, a load of 16 bytes of bf16.
WARPS = 2
# Most programs of the reduction over rows, for each block of columns.
PROGRAMS = 256
RETURNS = ("y",)
GRADIENTS = ("x", "bias")


def reference(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x + bias)


def in_models(x: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(torch.nn.functional.linear(x, matrix, bias))


def inputs_in_models(
    x: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.nn.functional.linear(x, matrix), bias


PATTERNS = (Pattern(in_models, inputs_in_models), Pattern(reference))


@triton.jit(do_not_specialize=["rows"])
def forward_kernel(x, bias, y, rows, columns, x_stride, y_stride, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # (ROWS,)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)  # (BLOCK,)
    inside = (row < rows)[:, None] & (column < columns)[None, :]  # (ROWS, BLOCK)
    value = tl.load(x + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
    u = value + tl.load(bias + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
    tl.store(
        y + row[:, None] * y_stride + column[None, :],
        0.5 * u * (1.0 + tl.erf(u * 0.7071067811865476)),
        mask=inside,
    )


@triton.jit(do_not_specialize=["rows", "each"])
def backward_kernel(
    dy,
    x,
    bias,
    dx,
    partial,
    rows,
    columns,
    dy_stride,
    x_stride,
    dx_stride,
    each,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Each program takes `each` rows of one block of columns and leaves partial sums of dbias."""
    program = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    b = tl.load(bias + column, mask=column < columns, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, each, ROWS):
        row = program * each + start + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (column < columns)[None, :]
        value = tl.load(x + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        u = value + b[None, :]
        slope = tl.load(dy + row[:, None] * dy_stride + column[None, :], mask=inside, other=0.0)
        slope = slope.to(tl.float32)
        density = 0.3989422804014327 * tl.exp(-0.5 * u * u)
        gradient = slope * (0.5 * (1.0 + tl.erf(u * 0.7071067811865476)) + u * density)
        tl.store(dx + row[:, None] * dx_stride + column[None, :], gradient, mask=inside)
        total += tl.sum(gradient, 0)
    tl.store(partial + program * columns + column, total, mask=column < columns)


def check(x: torch.Tensor, bias: torch.Tensor) -> None:
    if bias.shape != x.shape[-1:]:
        raise Unsupported(f"bias {tuple(bias.shape)} for x {tuple(x.shape)}; expected ({x.shape[-1]},)")


def forward(x: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor]:
    check(x, bias)
    flat = as_matrix(x, "x")
    y = torch.empty_like(flat, memory_format=torch.contiguous_format)
    if needs_launch(flat):
        grid = (triton.cdiv(len(flat), ROWS), triton.cdiv(flat.shape[1], BLOCK))
        forward_kernel[grid](
            flat, bias.contiguous(), y, *flat.shape, flat.stride(0), y.stride(0), ROWS, BLOCK, num_warps=WARPS
        )
    return (y.view(x.shape),)


def backward(dy: torch.Tensor, x: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    flat, slope = as_matrix(x, "x"), as_matrix(dy, "dy")
    dx = torch.empty_like(flat, memory_format=torch.contiguous_format)
    if not needs_launch(flat):
        return dx.view(x.shape), torch.zeros_like(bias)
    programs, each = split_rows(len(flat), ROWS, PROGRAMS)
    partial = torch.empty(programs, flat.shape[1], dtype=torch.float32, device=x.device)
    grid = (programs, triton.cdiv(flat.shape[1], BLOCK))
    strides = (slope.stride(0), flat.stride(0), dx.stride(0))
    backward_kernel[grid](
        slope, flat, bias.contiguous(), dx, partial, *flat.shape, *strides, each, ROWS, BLOCK, num_warps=WARPS
    )
    return dx.view(x.shape), partial.sum(0).to(bias.dtype)


def examples(dtype: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    kind = getattr(torch, DTYPES[dtype])
    return ((x, torch.randn(x.shape[-1], dtype=kind)) for x in example_matrices(kind))


def typical(dtype: str, count: int = 16384, device: str = "meta") -> tuple[torch.Tensor, torch.Tensor]:
    kind = getattr(torch, DTYPES[dtype])
    x, bias = (torch.empty(shape, dtype=kind, device=device) for shape in ((count, 4096), (4096,)))
    return x, bias


def cost(x: torch.Tensor, bias: torch.Tensor) -> tuple[Cost, Cost]:
    n, item = x.numel(), x.element_size()
    programs, _ = split_rows(x.numel() // max(1, x.shape[-1]), ROWS, PROGRAMS)
    columns = bias.numel()
    return (
        Cost(2 * n * item + columns * item, 6 * n),
        Cost(3 * n * item + columns * item + 4 * programs * columns, 12 * n),
    )


def builds(dtype: str, target: str = "sm_80") -> list[Build]:
    tiling = Tiling(ROWS, BLOCK, WARPS)
    gradients = ("dy", "x", "bias", "dx", "partial")
    return [
        row_build("forward", forward_kernel, dtype, tiling, ("x", "bias", "y"), ("x", "y")),
        row_build("backward", backward_kernel, dtype, tiling, gradients, ("dy", "x", "dx"), {"each": "i32"}),
    ]
