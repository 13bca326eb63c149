"""y = x / sqrt(mean(x^2) + eps) * weight, over the last dimension.

x (..., N), weight (N,); fp32, fp16, bf16; y as x. Raises Unsupported for N above 8,192 or another
size of weight. Zhang and Sennrich, Root Mean Square Layer Normalization,
https://arxiv.org/abs/1910.07467. With r = 1 / sqrt(mean(x^2) + eps), h = x r and g = dy weight: dx
= r (g - h mean(g h)), dweight = sum over rows of dy h.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from .. import rows as settings
from ..contract import DTYPES, POINTER, Build, Cost, Unsupported, launches
from ..patterns import Pattern

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


PATTERNS = (
    Pattern(
        in_models,
        lambda x, shape, weight, eps: (x, weight, torch.finfo(torch.float32).eps if eps is None else eps),
    ),
)


@triton.jit(do_not_specialize=["rows"])
def forward_kernel(
    x, weight, y, scale, rows, columns, x_stride, y_stride, eps, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # (ROWS,)
    column = tl.arange(0, BLOCK)  # (BLOCK,)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    value = tl.load(x + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(
        tl.float32
    )  # (ROWS, BLOCK)
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
        slope = tl.load(dy + row[:, None] * dy_stride + column[None, :], mask=inside, other=0.0).to(
            tl.float32
        )
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
    settings.fit(x.shape[-1])


def forward(x: torch.Tensor, weight: torch.Tensor, eps: float = EPS) -> tuple[torch.Tensor, torch.Tensor]:
    """y and the scale r of each row (rows,)."""
    check(x, weight)
    flat = settings.matrix(x, "x")
    y = torch.empty_like(flat, memory_format=torch.contiguous_format)
    scale = torch.empty(flat.shape[0], dtype=torch.float32, device=x.device)
    if launches(flat):
        rows, block, warps = settings.tile(flat.shape[1])
        grid = (triton.cdiv(len(flat), rows),)
        forward_kernel[grid](
            flat,
            weight.contiguous(),
            y,
            scale,
            *flat.shape,
            flat.stride(0),
            y.stride(0),
            eps,
            rows,
            block,
            num_warps=warps,
        )
    return y.view(x.shape), scale


def backward(
    dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """dx and dweight."""
    flat, slope = settings.matrix(x, "x"), settings.matrix(dy, "dy")
    dx = torch.empty_like(flat, memory_format=torch.contiguous_format)
    if not launches(flat):
        return dx.view(x.shape), torch.zeros_like(weight)
    rows, block, warps = settings.tile(flat.shape[1])
    programs, each = settings.chunks(len(flat), rows)
    partial = torch.empty(programs, flat.shape[1], dtype=torch.float32, device=x.device)
    strides = (slope.stride(0), flat.stride(0), dx.stride(0))
    backward_kernel[(programs,)](
        slope,
        flat,
        weight.contiguous(),
        scale,
        dx,
        partial,
        *flat.shape,
        *strides,
        each,
        rows,
        block,
        num_warps=warps,
    )
    return dx.view(x.shape), partial.sum(0).to(weight.dtype)


def examples(dtype: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    kind = getattr(torch, DTYPES[dtype])
    return ((x, torch.randn(x.shape[-1], dtype=kind)) for x in settings.examples(kind))


def typical(
    dtype: str, count: int = 16384, device: str = "meta", columns: int = 1024
) -> tuple[torch.Tensor, torch.Tensor]:
    kind = getattr(torch, DTYPES[dtype])
    return torch.empty(count, columns, dtype=kind, device=device), torch.empty(
        columns, dtype=kind, device=device
    )


def cost(x: torch.Tensor, weight: torch.Tensor) -> tuple[Cost, Cost]:
    n, rows, item = x.numel(), x.numel() // max(1, x.shape[-1]), x.element_size()
    programs, _ = settings.chunks(rows, settings.tile(x.shape[-1])[0])
    read_weight = weight.numel() * item
    return Cost(2 * n * item + read_weight + 4 * rows, 5 * n), Cost(
        3 * n * item + read_weight + 4 * rows + 4 * programs * weight.numel(), 11 * n
    )


def builds(dtype: str, target: str = "sm_80", columns: int = 1024) -> list[Build]:
    rows, block, warps = settings.tile(columns)
    pointer, constexprs = POINTER[dtype], {"ROWS": rows, "BLOCK": block}
    sizes = {"rows": "i32", "columns": "i32"}
    last = {"ROWS": "constexpr", "BLOCK": "constexpr"}
    strides = dict.fromkeys(("dy_stride", "x_stride", "dx_stride"), "i32")
    return [
        Build(
            "forward",
            forward_kernel,
            {
                "x": pointer,
                "weight": pointer,
                "y": pointer,
                "scale": "*fp32",
                **sizes,
                "x_stride": "i32",
                "y_stride": "i32",
                "eps": "fp32",
                **last,
            },
            constexprs,
            warps,
            divisible=("x", "weight", "y", "scale", "columns", "x_stride", "y_stride"),
        ),
        Build(
            "backward",
            backward_kernel,
            {
                "dy": pointer,
                "x": pointer,
                "weight": pointer,
                "scale": "*fp32",
                "dx": pointer,
                "partial": "*fp32",
                **sizes,
                **strides,
                "each": "i32",
                **last,
            },
            constexprs,
            warps,
            divisible=("dy", "x", "weight", "scale", "dx", "partial", "columns", *strides),
        ),
    ]
