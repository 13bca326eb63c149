"""Cross entropy of a linear layer's logits, without ever holding all of them.

loss = mean over rows of log(sum(exp(z))) - z[target] with z = x weight^T; rows whose target is -100
do not count. x (rows, H), weight (V, H), target (rows,) int64; fp32, fp16, bf16; loss () as x.

Rows are taken in chunks whose logits fit a budget of bytes: a product, the kernels of cross_entropy
on it (the gradient in place of the logits), two products for dx and dweight, which is summed in
fp32. So the forward pass makes the gradients of the sum of losses, and backward multiplies them by
dloss / count: divided before, p / count would underflow in fp16. With slopes=False it makes none
and they are empty. Raises Unsupported for other shapes. Hsu and others, Liger Kernel,
https://arxiv.org/abs/2410.10989; with p = softmax(z): dz = p - onehot(target), dx = dz weight,
dweight = dz^T x.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..contract import DTYPES, Build, Cost, Unsupported, needs_launch
from . import cross_entropy
from .cross_entropy import BLOCK, IGNORED, SUM_WARPS, WARPS, backward_kernel, forward_kernel

# Bytes of logits at once: a sixth of what a batch of 8 x 1,024 tokens of GPT-2 would take in bf16,
# and still products of a thousand rows.
BUDGET = 128 * 1024**2
RETURNS = ("loss", "dx", "dweight", "count")
GRADIENTS = ("x", "weight")
AUTOCAST = "lower"
# What backward needs is in the dtype of the inputs: judged as gradients, not as statistics.
STATISTICS = False


def reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    target: torch.Tensor,
    chunk_bytes: int = BUDGET,
    slopes: bool = True,
) -> torch.Tensor:
    """Returns the loss; chunk_bytes and slopes say how it is made, not what it is."""
    return torch.nn.functional.cross_entropy(torch.nn.functional.linear(x, weight), target)


def results(
    x: torch.Tensor,
    weight: torch.Tensor,
    target: torch.Tensor,
    chunk_bytes: int = BUDGET,
    slopes: bool = True,
) -> tuple[torch.Tensor, ...]:
    count = (target != IGNORED.value).sum()
    if not slopes:
        return reference(x, weight, target), x.new_empty(0), x.new_empty(0, dtype=torch.float32), count
    z = torch.nn.functional.linear(x, weight)  # (rows, V)
    counted = target != IGNORED.value
    there = torch.nn.functional.one_hot(target.where(counted, 0), weight.shape[0])
    dz = ((z.float().softmax(-1) - there) * counted[:, None]).to(x.dtype)
    return torch.nn.functional.cross_entropy(z, target), dz @ weight, (dz.mT @ x).float(), count


def chunk_rows(rows: int, columns: int, item: int, chunk_bytes: int) -> int:
    """Returns how many rows are taken at once, for logits of `item` bytes."""
    return max(1, min(rows, chunk_bytes // max(1, columns * item)))


def check(x: torch.Tensor, weight: torch.Tensor, target: torch.Tensor) -> None:
    fits = x.ndim == weight.ndim == 2 and x.shape[1] == weight.shape[1] and x.dtype == weight.dtype
    if not fits or target.shape != x.shape[:1] or target.dtype != torch.int64:
        inputs = (
            f"x {x.dtype}{tuple(x.shape)}, weight {weight.dtype}{tuple(weight.shape)}, target"
            f" {target.dtype}{tuple(target.shape)}"
        )
        raise Unsupported(f"{inputs}; expected (rows, H) and (V, H) of one dtype, and int64 (rows,)")


def forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    target: torch.Tensor,
    chunk_bytes: int = BUDGET,
    slopes: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the loss, dx and dweight (fp32) of the sum of losses, and how many rows count."""
    check(x, weight, target)
    losses, peaks, sums = (x.new_zeros(x.shape[0], dtype=torch.float32) for _ in range(3))
    count = (target != IGNORED.value).sum()
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device) if slopes else x.new_empty(0)
    total = torch.zeros(weight.shape, dtype=torch.float32, device=x.device) if slopes else None
    if needs_launch(losses) and weight.shape[0]:  # x without columns has logits too
        columns, wanted, slope = weight.shape[0], target.contiguous(), x.new_ones(1, dtype=torch.float32)
        step = chunk_rows(len(x), columns, x.element_size(), chunk_bytes)
        for start in range(0, len(x), step):
            here = slice(start, min(len(x), start + step))
            z = torch.nn.functional.linear(x[here], weight)  # (step, V)
            grid, moments = (len(z),), (peaks[here], sums[here])
            forward_kernel[grid](
                z, wanted[here], losses[here], *moments, columns, z.stride(0), BLOCK, num_warps=SUM_WARPS
            )
            if total is not None:
                tensors, sizes = (slope, z, wanted[here], *moments, z), (columns, z.stride(0), z.stride(0))
                backward_kernel[grid](*tensors, *sizes, BLOCK, num_warps=WARPS)
                dx[here] = z @ weight
                total += z.mT @ x[here]
    loss = (losses.sum(dtype=torch.float64) / count).to(x.dtype)
    dweight = x.new_empty(0, dtype=torch.float32) if total is None else total
    return loss, dx, dweight, count


def backward(
    dloss: torch.Tensor, dx: torch.Tensor, dweight: torch.Tensor, count: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns dx and dweight of the loss from those of the sum of losses."""
    scale = dloss.float() / count
    return (dx.float() * scale).to(dx.dtype), (dweight * scale).to(dx.dtype)


def examples(dtype: str) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]]:
    kind = getattr(torch, DTYPES[dtype])
    for rows, inner, columns, fit in (  # fit: rows whose logits the budget holds
        (1, 1, 1, 1),
        (3, 7, 5, 100),
        (17, 16, 130, 5),
        (6, 32, 2049, 4),
        (5, 8, 300, 2),
        (40, 3, 33, 40),
        (3, 0, 5, 2),
    ):
        yield (
            torch.randn(rows, inner, dtype=kind),
            torch.randn(columns, inner, dtype=kind),
            torch.randint(columns, (rows,)),
            fit * columns * kind.itemsize,
        )
    x, weight = torch.randn(9, 24, dtype=kind), torch.randn(40, 24, dtype=kind)
    yield x, weight, torch.tensor([0, -100, 39, 5, -100, 7, 1, -100, 2]), 4 * 40 * kind.itemsize
    yield (
        torch.randn(24, 9, dtype=kind).t(),
        torch.randn(24, 40, dtype=kind).t(),
        torch.randint(40, (9,)),
        BUDGET,
    )


def typical(
    dtype: str, count: int = 8192, device: str = "meta"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    kind = getattr(torch, DTYPES[dtype])
    x, weight = (torch.empty(shape, dtype=kind, device=device) for shape in ((count, 768), (50304, 768)))
    return x, weight, torch.zeros(count, dtype=torch.int64, device=device), BUDGET


def cost(
    x: torch.Tensor, weight: torch.Tensor, target: torch.Tensor, chunk_bytes: int = BUDGET
) -> tuple[Cost, Cost]:
    """Returns the costs of the two kernels over all chunks; the three products are torch's."""
    rows, columns, item = len(x), weight.shape[0], x.element_size()
    count = -(-rows // chunk_rows(rows, columns, item, chunk_bytes))
    n = rows * columns
    return Cost(n * item + rows * (8 + 4 + 4 + 4), 4 * n), Cost(
        2 * n * item + rows * (8 + 4 + 4) + 4 * count, 4 * n
    )


def builds(dtype: str, target: str = "sm_80") -> list[Build]:
    """Returns cross_entropy's builds, which have the vocabulary of `typical` too."""
    return cross_entropy.builds(dtype, target)
