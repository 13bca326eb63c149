"""Cross entropy: the mean over rows of log(sum(exp(x))) - x[target].

Rows whose target is -100 do not count. x (rows, N), target (rows,) int64 from 0 to N - 1, or -100;
fp32, fp16, bf16; loss () as x; any N, read once in blocks with a running maximum and sum (Milakov
and Gimelshein, Online normalizer calculation for softmax, https://arxiv.org/abs/1805.02867). Raises
Unsupported for another form. dx = dloss (softmax(x) - onehot(target)) / count, computed again from
x. Maximum and sum are kept apart: the log of the sum alone would lose the bits of small
probabilities beside large logits. A target out of range reads nothing and makes its row's loss
infinite.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from ..contract import DTYPES, POINTER, Build, Cost, Unsupported, needs_launch
from ..patterns import Pattern
from ..rows import as_matrix

# The target of rows that do not count: ignore_index of torch.nn.functional.cross_entropy.
IGNORED = tl.constexpr(-100)
# Columns that a program takes at once.
BLOCK = 2048
# Eight elements of a block for each thread, a load of 16 bytes of bf16.
WARPS = 8
# The same where warps wait for each other's maximum and sum at each block: with 8 of them forward
# took 1.3 times as long on an H200 (docs/results/h200.md).
SUM_WARPS = 4
RETURNS = ("loss", "peaks", "sums", "count")
GRADIENTS = ("x",)
AUTOCAST = "fp32"


def reference(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(x, target)


def results(
    x: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    peaks = x.float().amax(-1)
    return (
        reference(x, target),
        peaks,
        (x.float() - peaks[:, None]).exp().sum(-1),
        (target != IGNORED.value).sum(),
    )


PATTERNS = (Pattern(reference),)


@triton.jit
def forward_kernel(x, target, losses, peaks, sums, columns, x_stride, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    most, total = float("-inf"), 0.0
    for start in range(0, columns, BLOCK):
        column = start + tl.arange(0, BLOCK)  # (BLOCK,)
        value = tl.load(x + row * x_stride + column, mask=column < columns, other=float("-inf"))
        value = value.to(tl.float32)
        higher = tl.maximum(most, tl.max(value, 0))
        total = total * tl.exp(most - higher) + tl.sum(tl.exp(value - higher), 0)
        most = higher
    wanted = tl.load(target + row)
    inside = (wanted >= 0) & (wanted < columns)
    logit = tl.load(x + row * x_stride + wanted, mask=inside, other=float("-inf")).to(tl.float32)
    tl.store(losses + row, tl.where(wanted == IGNORED, 0.0, (most - logit) + tl.log(total)))
    tl.store(peaks + row, most)
    tl.store(sums + row, total)


@triton.jit
def backward_kernel(slope, x, target, peaks, sums, dx, columns, x_stride, dx_stride, BLOCK: tl.constexpr):
    """Each program makes the gradient of one row; slope (1,) is that of its loss, dloss / count."""
    row = tl.program_id(0).to(tl.int64)
    wanted = tl.load(target + row)
    most, total = tl.load(peaks + row), tl.load(sums + row)
    factor = tl.where(wanted == IGNORED, 0.0, tl.load(slope))
    for start in range(0, columns, BLOCK):
        column = start + tl.arange(0, BLOCK)
        value = tl.load(x + row * x_stride + column, mask=column < columns, other=float("-inf"))
        value = value.to(tl.float32)
        gradient = factor * (tl.exp(value - most) / total - tl.where(column == wanted, 1.0, 0.0))
        tl.store(dx + row * dx_stride + column, gradient, mask=column < columns)


def check(x: torch.Tensor, target: torch.Tensor) -> None:
    if x.ndim != 2 or target.shape != x.shape[:1] or target.dtype != torch.int64:
        raise Unsupported(
            f"x {tuple(x.shape)} and target {target.dtype}{tuple(target.shape)}; expected (rows, N) and int64"
            " (rows,)"
        )


def forward(
    x: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the loss, the maximum and the sum of exponentials of each row, and how many rows
    count.
    """
    check(x, target)
    flat = as_matrix(x, "x")
    losses, peaks, sums = (torch.zeros(flat.shape[0], dtype=torch.float32, device=x.device) for _ in range(3))
    count = (target != IGNORED.value).sum()
    if needs_launch(flat):
        tensors = (flat, target.contiguous(), losses, peaks, sums)
        forward_kernel[(len(flat),)](*tensors, flat.shape[1], flat.stride(0), BLOCK, num_warps=SUM_WARPS)
    return (losses.sum(dtype=torch.float64) / count).to(x.dtype), peaks, sums, count


def backward(
    dloss: torch.Tensor,
    x: torch.Tensor,
    target: torch.Tensor,
    peaks: torch.Tensor,
    sums: torch.Tensor,
    count: torch.Tensor,
) -> tuple[torch.Tensor]:
    """Returns dx."""
    flat = as_matrix(x, "x")
    dx = torch.empty_like(flat, memory_format=torch.contiguous_format)
    slope = (dloss.float() / count).reshape(1)
    if needs_launch(flat):
        tensors = (slope, flat, target.contiguous(), peaks, sums, dx)
        sizes = (flat.shape[1], flat.stride(0), dx.stride(0))
        backward_kernel[(len(flat),)](*tensors, *sizes, BLOCK, num_warps=WARPS)
    return (dx,)


def examples(dtype: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    kind = getattr(torch, DTYPES[dtype])
    for rows, columns in ((1, 1), (3, 7), (5, 129), (17, 256), (2, 2049), (3, 5000)):
        yield torch.randn(rows, columns, dtype=kind), torch.randint(columns, (rows,))
    x = torch.randn(6, 96, dtype=kind) * 20
    yield x[:, 16:80], torch.tensor([0, -100, 63, 5, -100, 7])
    yield x.t()[:64], torch.randint(6, (64,))


def typical(dtype: str, count: int = 8192, device: str = "meta") -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.empty(count, 50304, dtype=getattr(torch, DTYPES[dtype]), device=device)
    return x, torch.zeros(count, dtype=torch.int64, device=device)


def cost(x: torch.Tensor, target: torch.Tensor) -> tuple[Cost, Cost]:
    """Returns the costs of both kernels; the target's own logit lies among those that were read."""
    n, rows, item = x.numel(), len(x), x.element_size()
    return Cost(n * item + rows * (8 + 4 + 4 + 4), 4 * n), Cost(2 * n * item + rows * (8 + 4 + 4) + 4, 4 * n)


def builds(dtype: str, target: str = "sm_80") -> list[Build]:
    pointer, last = POINTER[dtype], {"BLOCK": "constexpr"}
    forward_tensors = {"x": pointer, "target": "*i64", "losses": "*fp32", "peaks": "*fp32", "sums": "*fp32"}
    backward_tensors = {
        "slope": "*fp32",
        "x": pointer,
        "target": "*i64",
        "peaks": "*fp32",
        "sums": "*fp32",
        "dx": pointer,
    }
    sizes = {"columns": "i32", "x_stride": "i32"}
    both = {"columns": "i32", "x_stride": "i32", "dx_stride": "i32"}
    return [
        Build(
            "forward",
            forward_kernel,
            {**forward_tensors, **sizes, **last},
            {"BLOCK": BLOCK},
            SUM_WARPS,
            divisible=(*forward_tensors, *sizes),
            single_loads=1,
        ),
        Build(
            "backward",
            backward_kernel,
            {**backward_tensors, **both, **last},
            {"BLOCK": BLOCK},
            WARPS,
            divisible=(*backward_tensors, *both),
        ),
    ]
