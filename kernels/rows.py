"""What the operations over the rows of a matrix share: how many columns a program takes at once,
how many rows, how many warps, and how their kernels are built ahead of time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from .contract import POINTER, Build, Unsupported

# Elements of a program's tile: few enough registers that most of a multiprocessor is filled
# (`hotlap kernels` shows occupancy; four times as many were 0.19 instead of 0.56 in the backward
# of rms_norm).
TILE = 1024
# Elements of a warp in a kernel that also sums over rows, and in rms_norm's, which spills with more
# (fp16 on sm_80): a load of 16 bytes of bf16 for each of its 32 threads.
WARP_ELEMENTS = 256
# The same in others, which have registers left for two such loads: forward in bf16 on an H200
# softmax and layer_norm took 0.87 and 0.90 of the time with 256 (docs/results/h200.md).
LONE_WARP_ELEMENTS = 512
# Most warps of a program: a block has at most 1,024 threads (CUDA C++ Programming Guide, table of
# compute capabilities).
MOST_WARPS = 32
# Longest row in elements: a program keeps a whole one in registers, and longer ones spill.
LONGEST = 8192
# Most programs of a reduction over rows: enough that a multiprocessor has several, few enough that
# few partial sums are left to add. 256 took 1.4 (layer_norm) and 1.8 (rms_norm) times as long on an
# H200 (docs/results/h200.md).
PROGRAMS = 1024
# Tensors that are fp32 whatever the inputs are: statistics of a row, and partial sums over rows.
ALWAYS_FP32 = frozenset({"mean", "scale", "partial", "partial_weight", "partial_bias"})


class Tiling(NamedTuple):
    """What one program takes at once."""

    rows: int
    # Columns, a power of two.
    block: int
    warps: int


def check_length(columns: int) -> None:
    """Raises Unsupported for rows that do not fit into a program."""
    if columns > LONGEST:
        raise Unsupported(
            f"rows of {columns:,} elements: these kernels keep a row in registers, at most {LONGEST:,}"
            " (longer ones spill); use the reference"
        )


def row_tiling(columns: int, each: int = LONE_WARP_ELEMENTS) -> Tiling:
    """The tiling in which a program holds whole rows of so many columns, with `each` elements a
    warp.
    """
    block = 1 << max(0, columns - 1).bit_length()
    rows = max(1, TILE // block)
    return Tiling(rows, block, warps_for(rows * block, each))


def warps_for(elements: int, each: int) -> int:
    """Warps for a tile of so many elements: one for `each` of them.

    A warp of AMD's has twice the threads, so half as many are needed.
    """
    return max(1, min(MOST_WARPS, elements // each) // (2 if torch.version.hip else 1))


def as_matrix(x: torch.Tensor, name: str) -> torch.Tensor:
    """The tensor (..., N) as a matrix (rows, N) in which the elements of a row lie side by side.

    It is copied only where they do not. Raises Unsupported for a tensor without dimensions.
    """
    if x.ndim == 0:
        raise Unsupported(f"{name} has no dimension; expected (..., N)")
    flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])  # -1 would be ambiguous for rows without elements
    return flat if flat.stride(1) == 1 or flat.shape[1] <= 1 else flat.contiguous()


def split_rows(rows: int, step: int, most: int = PROGRAMS) -> tuple[int, int]:
    """How many programs share the rows in a reduction, at most `most`, and how many rows each
    takes, a multiple of `step`.
    """
    each = max(1, -(-rows // most))
    each = -(-each // step) * step
    return max(1, -(-rows // each)), each


def example_matrices(kind: torch.dtype) -> Iterator[torch.Tensor]:
    """Yields matrices at the edges of the regimes: one element, odd sizes, one past a power of two,
    none at all, and every way in which rows may lie in memory.
    """
    for shape in ((1, 1), (3, 7), (2, 5, 64), (5, 129), (33, 256), (2, 1025), (0, 16)):
        yield torch.randn(shape, dtype=kind)
    wide = torch.randn(6, 96, dtype=kind)
    yield wide[:, 16:80]  # rows that are not side by side
    yield wide.t()[:64]  # elements of a row that are not
    yield torch.randn(1, 48, dtype=kind).expand(4, 48)  # stride 0
    yield torch.randn(5 * 33 + 1, dtype=kind)[1:].view(5, 33)  # not aligned


def row_build(
    name: str,
    kernel: Any,
    dtype: str,
    tiling: Tiling,
    tensors: tuple[str, ...],
    strided: tuple[str, ...],
    numbers: Mapping[str, str] | None = None,
    fused: bool = True,
) -> Build:
    """The build of a kernel over rows, whose arguments all such kernels have in one order.

    They are `tensors`, then rows and columns, the strides of the tensors named in `strided`, the
    `numbers` (name -> type), and the constexprs ROWS and BLOCK. Tensors are of `dtype` but for
    those that are fp32 always.
    """
    strides = tuple(f"{tensor}_stride" for tensor in strided)
    signature = {
        **{tensor: "*fp32" if tensor in ALWAYS_FP32 else POINTER[dtype] for tensor in tensors},
        **dict.fromkeys(("rows", "columns", *strides), "i32"),
        **(numbers or {}),
        **dict.fromkeys(("ROWS", "BLOCK"), "constexpr"),
    }
    constexprs = {"ROWS": tiling.rows, "BLOCK": tiling.block}
    divisible = (*tensors, "columns", *strides)
    return Build(name, kernel, signature, constexprs, tiling.warps, divisible=divisible, fused=fused)
