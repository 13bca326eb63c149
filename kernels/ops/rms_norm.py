"""RMS normalisation over the last dimension.

y = x / sqrt(mean(x^2) + eps) * weight. x (..., N), weight (N,); fp32, fp16, bf16; y as x. Raises
Unsupported for N above 8,192 or another size of weight. Zhang and Sennrich, Root Mean Square Layer
Normalization, https://arxiv.org/abs/1910.07467.

With r = 1 / sqrt(mean(x^2) + eps), h = x r and g = dy weight: dx = r (g - h mean(g h)), dweight =
sum over rows of dy h.
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
RETURNS = ("y", "scale")
GRADIENTS = ("x", "weight")
SETTINGS = ({"columns": 64}, {"columns": 768}, {"columns": 4096}, {"columns": 8192})


def reference(x: torch.Tensor, weight: torch.Tensor, eps: float = EPS) -> torch.Tensor:
    return torch.nn.functional.rms_norm(x, (x.shape[-1],), weight, eps)


def results(x: torch.Tensor, weight: torch.Tensor, eps: float = EPS) -> tuple[torch.Tensor, torch.Tensor]:
    return reference(x, weight, eps), (x.float().square().mean(-1) + eps).rsqrt().flatten()


def in_models(
    x: torch.Tensor, shape: tuple[int, ...], weight: torch.Tensor, eps: float | None
) -> torch.Tensor:
    return torch.nn.functional.rms_norm(x, shape, weight, eps)


def inputs_in_models(
    x: torch.Tensor, shape: tuple[int, ...], weight: torch.Tensor, eps: float | None
) -> tuple[torch.Tensor, torch.Tensor, float]:
    return x, weight, torch.finfo(torch.float32).eps if eps is None else eps


PATTERNS = (Pattern(in_models, inputs_in_models),)


@triton.jit(do_not_specialize=["rows"])
def forward_kernel(
    x, weight, y, scale, rows, columns, x_stride, y_stride, eps, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # (ROWS,)
    column = tl.arange(0, BLOCK)  # (BLOCK,)
    inside = (row < rows)[:, None] & (column < columns)[None, :]  # (ROWS, BLOCK)
    value = tl.load(x + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
    r = 1.0 / tl.sqrt(tl.sum(value * value, 1) / columns + eps)  # (ROWS,)
    w = tl.load(weight + column, mask=column < columns, other=0.0).to(tl.float32)  # (BLOCK,)
    tl.store(y + row[:, None] * y_stride + column[None, :], value * r[:, None] * w[None, :], mask=inside)
    tl.store(scale + row, r, mask=row < rows)


@triton.jit(do_not_specialize=["rows", "each"])
def backward_kernel(
    dy,
    x,
    weight,
    scale,
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
    """Each program takes `each` rows and leaves one row of partial sums of dweight."""
    program = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    w = tl.load(weight + column, mask=column < columns, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    first = program * each
    for start in range(0, each, ROWS):
        row = first + start + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (column < columns)[None, :]
        value = tl.load(x + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        slope = tl.load(dy + row[:, None] * dy_stride + column[None, :], mask=inside, other=0.0)
        slope = slope.to(tl.float32)
        r = tl.load(scale + row, mask=row < rows, other=0.0)
        hat = value * r[:, None]
        g = slope * w[None, :]
        tl.store(
            dx + row[:, None] * dx_stride + column[None, :],
            r[:, None] * (g - hat * (tl.sum(g * hat, 1) / columns)[:, None]),
            mask=inside,
        )
        total += tl.sum(slope * hat, 0)
    tl.store(partial + program * columns + column, total, mask=column < columns)


def check(x: torch.Tensor, weight: torch.Tensor) -> None:
    if weight.shape != x.shape[-1:]:
        raise Unsupported(f"weight {tuple(weight.shape)} for x {tuple(x.shape)}; expected ({x.shape[-1]},)")
    check_length(x.shape[-1])


def forward(x: torch.Tensor, weight: torch.Tensor, eps: float = EPS) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns y and the scale r of each row (rows,)."""
    check(x, weight)
    flat = as_matrix(x, "x")
    y = torch.empty_like(flat, memory_format=torch.contiguous_format)
    scale = torch.empty(flat.shape[0], dtype=torch.float32, device=x.device)
    if needs_launch(flat):
        rows, block, warps = row_tiling(flat.shape[1], WARP_ELEMENTS)
        tensors = (flat, weight.contiguous(), y, scale)
        strides = (flat.stride(0), y.stride(0))
        forward_kernel[(triton.cdiv(len(flat), rows),)](
            *tensors, *flat.shape, *strides, eps, rows, block, num_warps=warps
        )
    return y.view(x.shape), scale


def backward(
    dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns dx and dweight."""
    flat, slope = as_matrix(x, "x"), as_matrix(dy, "dy")
    dx = torch.empty_like(flat, memory_format=torch.contiguous_format)
    if not needs_launch(flat):
        return dx.view(x.shape), torch.zeros_like(weight)
    rows, block, warps = row_tiling(flat.shape[1], WARP_ELEMENTS)
    programs, each = split_rows(len(flat), rows)
    partial = torch.empty(programs, flat.shape[1], dtype=torch.float32, device=x.device)
    tensors = (slope, flat, weight.contiguous(), scale, dx, partial)
    strides = (slope.stride(0), flat.stride(0), dx.stride(0))
    backward_kernel[(programs,)](*tensors, *flat.shape, *strides, each, rows, block, num_warps=warps)
    return dx.view(x.shape), partial.sum(0).to(weight.dtype)


def examples(dtype: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    kind = getattr(torch, DTYPES[dtype])
    return ((x, torch.randn(x.shape[-1], dtype=kind)) for x in example_matrices(kind))


def typical(
    dtype: str, count: int = 16384, device: str = "meta", columns: int = 1024
) -> tuple[torch.Tensor, torch.Tensor]:
    kind = getattr(torch, DTYPES[dtype])
    x, weight = (torch.empty(shape, dtype=kind, device=device) for shape in ((count, columns), (columns,)))
    return x, weight


def cost(x: torch.Tensor, weight: torch.Tensor) -> tuple[Cost, Cost]:
    n, rows, item = x.numel(), x.numel() // max(1, x.shape[-1]), x.element_size()
    programs, _ = split_rows(rows, row_tiling(x.shape[-1]).rows)
    read_weight = weight.numel() * item
    return (
        Cost(2 * n * item + read_weight + 4 * rows, 5 * n),
        Cost(3 * n * item + read_weight + 4 * rows + 4 * programs * weight.numel(), 11 * n),
    )


def builds(dtype: str, target: str = "sm_80", columns: int = 1024) -> list[Build]:
    tiling = row_tiling(columns, WARP_ELEMENTS)
    gradients = ("dy", "x", "weight", "scale", "dx", "partial")
    return [
        row_build(
            "forward",
            forward_kernel,
            dtype,
            tiling,
            ("x", "weight", "y", "scale"),
            ("x", "y"),
            {"eps": "fp32"},
        ),
        row_build("backward", backward_kernel, dtype, tiling, gradients, ("dy", "x", "dx"), {"each": "i32"}),
    ]
