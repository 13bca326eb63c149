"""Rotary position embedding, in the half-split layout of GPT-NeoX.

y1 = x1 cos - x2 sin, y2 = x1 sin + x2 cos, where x1 and x2 are the halves of the last dimension and
cos, sin belong to the position. x (..., T, D) with even D up to 512, cos and sin (T, D / 2), which
have no gradient; fp32, fp16, bf16; y as x; T at run time. Raises Unsupported for odd or larger D
and for tables of another size. Su and others, RoFormer, https://arxiv.org/abs/2104.09864. dx1 = dy1
cos + dy2 sin, dx2 = dy2 cos - dy1 sin: the same with -sin.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from ..contract import DTYPES, POINTER, Build, Cost, Unsupported, needs_launch
from ..patterns import Pattern
from ..rows import as_matrix, row_tiling

# Largest D: a program holds whole halves.
LARGEST = 512
RETURNS = ("y",)
GRADIENTS = ("x",)
SETTINGS = ({"half": 64}, {"half": 256})


def reference(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


PATTERNS = (Pattern(reference),)


@triton.jit(do_not_specialize=["rows", "positions"])
def turn_kernel(
    x,
    cos,
    sin,
    y,
    rows,
    positions,
    half,
    x_stride,
    y_stride,
    direction,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Each program turns ROWS rows; direction is 1 forward and -1 for the gradient."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # (ROWS,)
    column = tl.arange(0, BLOCK)  # (BLOCK,) of one half
    inside = (row < rows)[:, None] & (column < half)[None, :]
    angle = (row % positions)[:, None] * half + column[None, :]
    c = tl.load(cos + angle, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(sin + angle, mask=inside, other=0.0).to(tl.float32) * direction
    from_x = row[:, None] * x_stride + column[None, :]
    first = tl.load(x + from_x, mask=inside, other=0.0).to(tl.float32)  # (ROWS, BLOCK)
    second = tl.load(x + from_x + half, mask=inside, other=0.0).to(tl.float32)
    to_y = row[:, None] * y_stride + column[None, :]
    tl.store(y + to_y, first * c - second * s, mask=inside)
    tl.store(y + to_y + half, first * s + second * c, mask=inside)


def check(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    if (
        x.ndim < 2
        or x.shape[-1] % 2
        or x.shape[-1] > LARGEST
        or cos.shape != (x.shape[-2], x.shape[-1] // 2)
        or sin.shape != cos.shape
    ):
        raise Unsupported(
            f"x {tuple(x.shape)} with cos {tuple(cos.shape)} and sin {tuple(sin.shape)}; expected (..., T, D)"
            f" with even D up to {LARGEST} and tables (T, D / 2)"
        )


def turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, direction: float) -> torch.Tensor:
    """Returns x turned by its positions' angles, or back where direction is -1."""
    positions, half = x.shape[-2], x.shape[-1] // 2
    flat = as_matrix(x, "x")
    y = torch.empty_like(flat, memory_format=torch.contiguous_format)
    if needs_launch(flat):
        rows, block, warps = row_tiling(half)
        tensors = (flat, cos.contiguous(), sin.contiguous(), y)
        sizes = (len(flat), positions, half, flat.stride(0), y.stride(0))
        turn_kernel[(triton.cdiv(len(flat), rows),)](
            *tensors, *sizes, direction, rows, block, num_warps=warps
        )
    return y.view(x.shape)


def forward(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor]:
    check(x, cos, sin)
    return (turn(x, cos, sin, 1.0),)


def backward(dy: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor]:
    return (turn(dy, cos, sin, -1.0),)


def examples(dtype: str) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    kind = getattr(torch, DTYPES[dtype])
    for shape in ((1, 1, 2), (2, 3, 5, 6), (1, 2, 33, 64), (3, 129, 16), (0, 4, 8), (2, 1, 7, 258)):
        positions, half = shape[-2], shape[-1] // 2
        angles = torch.rand(positions, half) * 6.28
        cos, sin = angles.cos().to(kind), angles.sin().to(kind)
        yield torch.randn(shape, dtype=kind), cos, sin
        yield torch.randn(*shape[:-2], shape[-1], shape[-2], dtype=kind).mT, cos, sin


def typical(
    dtype: str, count: int = 1024, device: str = "meta", half: int = 32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    kind = getattr(torch, DTYPES[dtype])
    x, cos, sin = (
        torch.empty(shape, dtype=kind, device=device)
        for shape in ((16, 16, count, 2 * half), (count, half), (count, half))
    )
    return x, cos, sin


def cost(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[Cost, Cost]:
    tables = (cos.numel() + sin.numel()) * x.element_size() if x.numel() else 0
    both_ways = Cost(2 * x.numel() * x.element_size() + tables, 3 * x.numel())
    return both_ways, both_ways


def builds(dtype: str, target: str = "sm_80", half: int = 32) -> list[Build]:
    rows, block, warps = row_tiling(half)
    tensors = ("x", "cos", "sin", "y")
    sizes = dict.fromkeys(("rows", "positions", "half", "x_stride", "y_stride"), "i32")
    signature = {
        **dict.fromkeys(tensors, POINTER[dtype]),
        **sizes,
        "direction": "fp32",
        "ROWS": "constexpr",
        "BLOCK": "constexpr",
    }
    aligned = (*tensors, "half", "x_stride", "y_stride")
    return [
        Build(name, turn_kernel, signature, {"ROWS": rows, "BLOCK": block}, warps, divisible=aligned)
        for name in ("forward", "backward")
    ]
