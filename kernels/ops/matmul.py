"""y = act(a b + bias), act being nothing, ReLU or the exact GELU, in one kernel: sums stay in fp32
until the end and y is written once.

a (M, K), b (K, N), bias (N,) or None; fp32, fp16, bf16, all of one dtype; y (M, N) as a; any
strides (a transposed b is what a linear layer has). For inference: it has no gradient. Raises
Unsupported for other shapes, dtypes and words. Programs go over the blocks of y in groups of rows,
so that neighbours find b in the cache (Triton's tutorial on matrix multiplication; Tillet, Kung and
Cox, MAPL 2019). cuBLAS stays the default of torch; this one is for the epilogue that it does not
have.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from ..contract import DTYPES, POINTER, Build, Cost, Unsupported, architecture, launches

ACTS = ("none", "relu", "gelu")
RETURNS = ("y",)
GRADIENTS = ()
AUTOCAST = "lower"
SETTINGS = ({"act": "none"}, {"act": "relu"}, {"linear": True})
GROUP = 8
# (rows, columns, inner, warps, stages) of a program. Without tensor cores (fp32, and sm_75 under
# Triton 3.8) a product needs several times the registers.
TENSOR_CORES, ORDINARY, HALF_ORDINARY = (128, 128, 32, 8, 3), (64, 64, 16, 8, 2), (64, 64, 32, 8, 2)


def reference(
    a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None, act: str = "none"
) -> torch.Tensor:
    y = a @ b if bias is None else torch.addmm(bias, a, b)
    return {"none": lambda: y, "relu": y.relu, "gelu": lambda: torch.nn.functional.gelu(y)}[act]()


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
    far, step = (
        tl.arange(0, INNER).to(tl.int64),
        tl.full((), INNER, tl.int64),
    )  # times a stride, k passes 2^31 too
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


def tile(item: int, target: str) -> tuple[int, int, int, int, int]:
    return ORDINARY if item == 4 else HALF_ORDINARY if target == "sm_75" else TENSOR_CORES


def check(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None, act: str = "none") -> None:
    if act not in ACTS:
        raise Unsupported(f"act {act!r} is none of {', '.join(ACTS)}")
    fits = a.ndim == b.ndim == 2 and a.shape[1] == b.shape[0] and a.dtype == b.dtype
    if not fits or (bias is not None and (bias.shape != b.shape[1:] or bias.dtype != a.dtype)):
        said = (
            f"a {a.dtype}{tuple(a.shape)}, b {b.dtype}{tuple(b.shape)}, bias"
            f" {None if bias is None else tuple(bias.shape)}"
        )
        raise Unsupported(f"{said}; expected (M, K), (K, N) and (N,) of one dtype")


def forward(
    a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None, act: str = "none"
) -> tuple[torch.Tensor]:
    check(a, b, bias, act)
    (rows, inner), columns = a.shape, b.shape[1]
    y = torch.empty(rows, columns, dtype=a.dtype, device=a.device)
    if launches(y):
        height, width, depth, warps, stages = tile(a.element_size(), architecture(a.device))
        grid = (triton.cdiv(rows, height) * triton.cdiv(columns, width),)
        added = None if bias is None else bias.contiguous()
        shape = (act, height, width, depth, GROUP)
        forward_kernel[grid](
            a,
            b,
            added,
            y,
            rows,
            columns,
            inner,
            *a.stride(),
            *b.stride(),
            y.stride(0),
            *shape,
            num_warps=warps,
            num_stages=stages,
        )
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
    yield (
        torch.randn(20, 40, dtype=kind),
        torch.randn(24, 40, dtype=kind).t(),
        torch.randn(24, dtype=kind),
        "none",
    )  # as a linear layer lies
    yield torch.randn(40, 20, dtype=kind).t(), torch.randn(40, 96, dtype=kind)[:, 8:72], None, "relu"
    yield (
        torch.randn(9 * 33 + 1, dtype=kind)[1:].view(9, 33),
        torch.randn(1, 16, dtype=kind).expand(33, 16),
        None,
        "none",
    )


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
    return (
        Cost(
            (rows * inner + inner * columns + added + rows * columns) * item,
            2 * rows * inner * columns + (0 if act == "none" else 5 * rows * columns),
        ),
    )


def builds(dtype: str, target: str = "sm_80", act: str = "gelu", linear: bool = False) -> list[Build]:
    height, width, depth, warps, stages = tile(4 if dtype == "fp32" else 2, target)
    tensors = ("a", "b", "bias", "y")
    sizes = ("rows", "columns", "inner", "a_row")
    along = ("b_inner", "b_column")
    across = ("b_column", "b_inner")
    one, free = along if linear else across
    constexprs = {
        "a_inner": 1,
        one: 1,
        "ACT": act,
        "ROWS": height,
        "COLUMNS": width,
        "INNER": depth,
        "GROUP": GROUP,
    }
    names = (*tensors, *sizes, "a_inner", *along, "y_row", "ACT", "ROWS", "COLUMNS", "INNER", "GROUP")
    signature = {
        name: "constexpr" if name in constexprs else POINTER[dtype] if name in tensors else "i32"
        for name in names
    }
    return [
        Build(
            "forward",
            forward_kernel,
            signature,
            constexprs,
            warps,
            stages,
            divisible=(*tensors, "columns", "inner", "a_row", free, "y_row"),
            dot=True,
        )
    ]
