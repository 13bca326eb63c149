"""Settings that the operations over rows of a matrix share: how many columns a program takes at
once, how many rows, how many warps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from .contract import Unsupported

# Elements of a program's tile, and of a warp: a load of 16 bytes of bf16 a thread, few enough
# registers that most of a multiprocessor is filled (`hotlap kernels` shows occupancy; four times
# the tile was 0.19 instead of 0.56 in the backward of rms_norm).
TILE, OF_A_WARP, LONGEST = 1024, 256, 8192
PROGRAMS = 256


def fit(columns: int) -> None:
    """Raises Unsupported for rows that do not fit into a program."""
    if columns > LONGEST:
        raise Unsupported(
            f"rows of {columns:,} elements: these kernels keep a row in registers, at most {LONGEST:,}"
            " (longer ones spill); use the reference"
        )


def tile(columns: int) -> tuple[int, int, int]:
    """(rows a program, block of columns: the power of two that holds a row, warps)."""
    wide = 1 << max(0, columns - 1).bit_length()
    rows = max(1, TILE // wide)
    return rows, wide, warps(rows * wide)


def warps(elements: int) -> int:
    """Eight elements a thread, as far as a block's 1,024 threads reach; a warp of AMD's has twice
    the threads.
    """
    return max(1, min(32, elements // OF_A_WARP) // (2 if torch.version.hip else 1))


def matrix(x: torch.Tensor, name: str) -> torch.Tensor:
    """(..., N) as (rows, N) whose elements of a row lie side by side; copied only where they do
    not.
    """
    if x.ndim == 0:
        raise Unsupported(f"{name} has no dimension; expected (..., N)")
    flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])  # -1 would be ambiguous for rows without elements
    return flat if flat.stride(1) == 1 or flat.shape[1] <= 1 else flat.contiguous()


def chunks(rows: int, step: int) -> tuple[int, int]:
    """Programs of a reduction over rows, and the rows of each (a multiple of step): a bounded
    number of partial sums.
    """
    each = max(1, -(-rows // PROGRAMS))
    each = -(-each // step) * step
    return max(1, -(-rows // each)), each


def examples(kind: torch.dtype) -> Iterator[torch.Tensor]:
    """Matrices at the edges of the regimes: one element, odd sizes, one past a power of two, empty,
    every way in which rows may lie.
    """
    for shape in ((1, 1), (3, 7), (2, 5, 64), (5, 129), (33, 256), (2, 1025), (0, 16)):
        yield torch.randn(shape, dtype=kind)
    wide = torch.randn(6, 96, dtype=kind)
    yield wide[:, 16:80]  # rows that are not side by side
    yield wide.t()[:64]  # elements of a row that are not
    yield torch.randn(1, 48, dtype=kind).expand(4, 48)  # stride 0
    yield torch.randn(5 * 33 + 1, dtype=kind)[1:].view(5, 33)  # not aligned
