"""A product of matrices with its epilogue in one kernel: sums stay in fp32 and y is written once.

y = act(a b + bias), act being nothing, ReLU or the exact GELU. a (M, K), b (K, N), bias (N,) or
None; fp32, fp16, bf16, all of one dtype; y (M, N) as a; any strides (a transposed b is what a
linear layer has). For inference: it has no gradient. Raises Unsupported for other shapes, dtypes
and words.

Programs go over the blocks of y in groups of rows, so that neighbours find b in the cache (Triton's
tutorial on matrix multiplication; Tillet, Kung and Cox, MAPL 2019). cuBLAS stays the default of
torch; this one is for the epilogue that it does not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from ..contract import DTYPES, POINTER, Build, Cost, Unsupported, architecture, needs_launch

# Words for act.
ACTS = ("none", "relu", "gelu")
RETURNS = ("y",)
GRADIENTS = ()
AUTOCAST = "lower"
SETTINGS = ({"act": "none"}, {"act": "relu"}, {"linear": True})
# Rows of blocks that programs take before they go on to the next column of blocks, as in Triton's
# tutorial.
GROUP = 8


class Tile(NamedTuple):
    """What a program takes at once."""

    rows: int
    columns: int
    # Terms of the sums.
    inner: int
    warps: int
    # Stages of the pipeline of the loop over the terms.
    stages: int


# For products on tensor cores: as large as nothing spills (`hotlap kernels`).
TENSOR_CORES = Tile(128, 128, 32, 8, 3)
# In fp32, without tensor cores: a product needs several times the registers.
ORDINARY = Tile(64, 64, 16, 8, 2)
# In fp16 and bf16 on sm_75, for which Triton 3.8 emits no tensor cores.
HALF_ORDINARY = Tile(64, 64, 32, 8, 2)


def reference(
    a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None, act: str = "none"
) -> torch.Tensor:
    y = a @ b if bias is None else torch.addmm(bias, a, b)
    if act == "none":
        return y
    return y.relu() if act == "relu" else torch.nn.functional.gelu(y)


@triton.jit(do_not_specialize=["rows"])
def forward_kernel(
    a, b, bias, y, rows, columns, inner, a_row, a_inner, b_inner, b_column, y_row,
    ACT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    wide = tl.cdiv(columns, COLUMNS)
    first = tl.program_id(0) // (GROUP * wide) * GROUP
    high = tl.minimum(tl.cdiv(rows, ROWS) - first, GROUP)
    within = tl.program_id(0) % (GROUP * wide)
    row = (first + within % high).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # (ROWS,)
    column = (within // high).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)  # (COLUMNS,)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    far = tl.arange(0, INNER).to(tl.int64)  # times a stride, k passes 2^31 too
    step = tl.full((), INNER, tl.int64)
    left_at = a + row[:, None] * a_row + far[None, :] * a_inner  # (ROWS, INNER)
    right_at = b + far[:, None] * b_inner + column[None, :] * b_column  # (INNER, COLUMNS)
    for start in range(0, inner, INNER):
        k = start + tl.arange(0, INNER)  # (INNER,)
        left = tl.load(left_at, mask=(row < rows)[:, None] & (k < inner)[None, :], other=0.0)
        right = tl.load(right_at, mask=(k < inner)[:, None] & (column < columns)[None, :], other=0.0)
        total = tl.dot(left, right, total, input_precision="ieee")
        left_at += step * a_inner
        right_at += step * b_inner
    if bias is not None:
        total += tl.load(bias + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
    if ACT == "relu":
        total = tl.where(total < 0.0, 0.0, total)  # NaN stays
    if ACT == "gelu":
        total = 0.5 * total * (1.0 + tl.erf(total * 0.7071067811865476))
    tl.store(
        y + row[:, None] * y_row + column[None, :],
        total,
        mask=(row < rows)[:, None] & (column < columns)[None, :],
    )


def choose_tile(item: int, target: str) -> Tile:
    """Returns the tile for elements of `item` bytes."""
    if item == 4:
        return ORDINARY
    return HALF_ORDINARY if target == "sm_75" else TENSOR_CORES


def check(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None, act: str = "none") -> None:
    if act not in ACTS:
        raise Unsupported(f"act {act!r} is none of {', '.join(ACTS)}")
    fits = a.ndim == b.ndim == 2 and a.shape[1] == b.shape[0] and a.dtype == b.dtype
    if not fits or (bias is not None and (bias.shape != b.shape[1:] or bias.dtype != a.dtype)):
        inputs = (
            f"a {a.dtype}{tuple(a.shape)}, b {b.dtype}{tuple(b.shape)}, bias"
            f" {None if bias is None else tuple(bias.shape)}"
        )
        raise Unsupported(f"{inputs}; expected (M, K), (K, N) and (N,) of one dtype")


def forward(
    a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None, act: str = "none"
) -> tuple[torch.Tensor]:
    check(a, b, bias, act)
    (rows, inner), columns = a.shape, b.shape[1]
    y = torch.empty(rows, columns, dtype=a.dtype, device=a.device)
    if needs_launch(y):
        tile = choose_tile(a.element_size(), architecture(a.device))
        grid = (triton.cdiv(rows, tile.rows) * triton.cdiv(columns, tile.columns),)
        added = None if bias is None else bias.contiguous()
        strides = (*a.stride(), *b.stride(), y.stride(0))
        constexprs = (act, tile.rows, tile.columns, tile.inner, GROUP)
        arguments = (a, b, added, y, rows, columns, inner, *strides, *constexprs)
        forward_kernel[grid](*arguments, num_warps=tile.warps, num_stages=tile.stages)
    return (y,)


def examples(dtype: str) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, str]]:
    kind = getattr(torch, DTYPES[dtype])
    for (rows, inner, columns), added, act in (
        ((1, 1, 1), True, "none"),
        ((3, 7, 5), False, "relu"),
        ((64, 32, 128), True, "gelu"),
        ((129, 33, 65), True, "relu"),
        ((1100, 17, 20), False, "none"),
        ((5, 130, 260), True, "gelu"),
        ((0, 8, 4), True, "none"),
        ((7, 0, 4), True, "gelu"),
    ):
        yield (
            torch.randn(rows, inner, dtype=kind),
            torch.randn(inner, columns, dtype=kind),
            torch.randn(columns, dtype=kind) if added else None,
            act,
        )
    linear = torch.randn(20, 40, dtype=kind), torch.randn(24, 40, dtype=kind).t()  # as a linear layer lies
    yield *linear, torch.randn(24, dtype=kind), "none"
    yield torch.randn(40, 20, dtype=kind).t(), torch.randn(40, 96, dtype=kind)[:, 8:72], None, "relu"
    unaligned = torch.randn(9 * 33 + 1, dtype=kind)[1:].view(9, 33)
    yield unaligned, torch.randn(1, 16, dtype=kind).expand(33, 16), None, "none"


def typical(
    dtype: str, count: int = 8192, device: str = "meta", act: str = "gelu", linear: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, str]:
    kind = getattr(torch, DTYPES[dtype])
    a, b, bias = (
        torch.empty(shape, dtype=kind, device=device)
        for shape in ((count, 1024), (4096, 1024) if linear else (1024, 4096), (4096,))
    )
    return a, b.t() if linear else b, bias, act


def cost(
    a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None, act: str = "none"
) -> tuple[Cost]:
    (rows, inner), columns, item = a.shape, b.shape[1], a.element_size()
    added = 0 if bias is None else columns
    elements = rows * inner + inner * columns + added + rows * columns
    flops = 2 * rows * inner * columns + (0 if act == "none" else 5 * rows * columns)
    return (Cost(elements * item, flops),)


def builds(dtype: str, target: str = "sm_80", act: str = "gelu", linear: bool = False) -> list[Build]:
    tile = choose_tile(4 if dtype == "fp32" else 2, target)
    tensors = ("a", "b", "bias", "y")
    # The stride of b that is 1: along its rows, or along its columns as a linear layer has it.
    unit, free = ("b_inner", "b_column") if linear else ("b_column", "b_inner")
    constexprs = {
        "a_inner": 1,
        unit: 1,
        "ACT": act,
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        "INNER": tile.inner,
        "GROUP": GROUP,
    }
    sizes = ("rows", "columns", "inner")
    strides = ("a_row", "a_inner", "b_inner", "b_column", "y_row")
    signature = dict.fromkeys(tensors, POINTER[dtype])
    for name in (*sizes, *strides, "ACT", "ROWS", "COLUMNS", "INNER", "GROUP"):
        signature[name] = "constexpr" if name in constexprs else "i32"
    divisible = (*tensors, "columns", "inner", "a_row", free, "y_row")
    return [
        Build(
            "forward",
            forward_kernel,
            signature,
            constexprs,
            tile.warps,
            tile.stages,
            divisible=divisible,
            dot=True,
        )
    ]
