"""Softmax over the last dimension.

y = exp(x - max(x)) / sum(exp(x - max(x))). x (..., N); fp32, fp16, bf16; y as x. A row is loaded
once. Raises Unsupported for N above 8,192. The shift by the maximum keeps the exponential finite
(Goodfellow, Bengio and Courville, Deep Learning, 4.1). dx = y (dy - sum(dy y)).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from ..contract import DTYPES, Build, Cost, Unsupported, needs_launch
from ..patterns import Pattern
from ..rows import as_matrix, check_length, example_matrices, row_build, row_tiling

RETURNS = ("y",)
GRADIENTS = ("x",)
AUTOCAST = "fp32"
SETTINGS = ({"columns": 64}, {"columns": 768}, {"columns": 4096}, {"columns": 8192})


def reference(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x, -1)


def in_models(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.softmax(x, -1)


def by_torch(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x, -1)


PATTERNS = (Pattern(in_models), Pattern(by_torch))


@triton.jit(do_not_specialize=["rows"])
def forward_kernel(x, y, rows, columns, x_stride, y_stride, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # (ROWS,)
    column = tl.arange(0, BLOCK)  # (BLOCK,)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    value = tl.load(
        x + row[:, None] * x_stride + column[None, :], mask=inside, other=float("-inf")
    )  # (ROWS, BLOCK)
    value = value.to(tl.float32)
    most = tl.where(row < rows, tl.max(value, 1), 0.0)  # (ROWS,)
    power = tl.exp(value - most[:, None])
    total = tl.where(row < rows, tl.sum(power, 1), 1.0)
    tl.store(y + row[:, None] * y_stride + column[None, :], power / total[:, None], mask=inside)


@triton.jit(do_not_specialize=["rows"])
def backward_kernel(
    dy, y, dx, rows, columns, dy_stride, y_stride, dx_stride, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    value = tl.load(y + row[:, None] * y_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
    slope = tl.load(dy + row[:, None] * dy_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(
        dx + row[:, None] * dx_stride + column[None, :],
        value * (slope - tl.sum(value * slope, 1)[:, None]),
        mask=inside,
    )


def check(x: torch.Tensor) -> None:
    if x.ndim == 0:
        raise Unsupported("x has no dimension; expected (..., N)")
    check_length(x.shape[-1])


def forward(x: torch.Tensor) -> tuple[torch.Tensor]:
    check(x)
    flat = as_matrix(x, "x")
    y = torch.empty_like(flat, memory_format=torch.contiguous_format)
    if needs_launch(flat):
        rows, block, warps = row_tiling(flat.shape[1])
        forward_kernel[(triton.cdiv(len(flat), rows),)](
            flat, y, *flat.shape, flat.stride(0), y.stride(0), rows, block, num_warps=warps
        )
    return (y.view(x.shape),)


def backward(dy: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor]:
    slope, flat = as_matrix(dy, "dy"), as_matrix(y, "y")
    dx = torch.empty_like(flat, memory_format=torch.contiguous_format)
    if needs_launch(flat):
        rows, block, warps = row_tiling(flat.shape[1])
        strides = (slope.stride(0), flat.stride(0), dx.stride(0))
        backward_kernel[(triton.cdiv(len(flat), rows),)](
            slope, flat, dx, *flat.shape, *strides, rows, block, num_warps=warps
        )
    return (dx.view(y.shape),)


def examples(dtype: str) -> Iterator[tuple[torch.Tensor]]:
    return ((x,) for x in example_matrices(getattr(torch, DTYPES[dtype])))


def typical(dtype: str, count: int = 16384, device: str = "meta", columns: int = 1024) -> tuple[torch.Tensor]:
    return (torch.empty(count, columns, dtype=getattr(torch, DTYPES[dtype]), device=device),)


def cost(x: torch.Tensor) -> tuple[Cost, Cost]:
    n, item = x.numel(), x.element_size()
    return Cost(2 * n * item, 5 * n), Cost(3 * n * item, 4 * n)


def builds(dtype: str, target: str = "sm_80", columns: int = 1024) -> list[Build]:
    tiling = row_tiling(columns)
    return [
        row_build("forward", forward_kernel, dtype, tiling, ("x", "y"), ("x", "y")),
        row_build("backward", backward_kernel, dtype, tiling, ("dy", "y", "dx"), ("dy", "y", "dx")),
    ]
