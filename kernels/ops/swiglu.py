"""SwiGLU: SiLU of one half times the other, element by element.

y = a / (1 + exp(-a)) * b. a, b of one shape; fp32, fp16, bf16; y as a. Raises Unsupported for
different shapes or dtypes. Shazeer, GLU Variants Improve Transformer,
https://arxiv.org/abs/2002.05202. Nothing is saved: with s = 1 / (1 + exp(-a)), da = dy b s (1 + a
(1 - s)) and db = dy a s are computed again from a and b.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from ..contract import DTYPES, POINTER, Build, Cost, Unsupported, needs_launch
from ..patterns import Pattern
from ..rows import example_matrices

# Elements of a program.
BLOCK = 1024
# Eight elements a thread, a load of 16 bytes of bf16.
WARPS = 4
RETURNS = ("y",)
GRADIENTS = ("a", "b")


def reference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.silu(a) * b


PATTERNS = (Pattern(reference),)


# The count of elements is specialised (multiple of 16 or not): otherwise the mask would cut every
# load of 16 bytes into single elements (seen: 0 of 16).
@triton.jit
def forward_kernel(a, b, y, count, BLOCK: tl.constexpr):
    element = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # (BLOCK,)
    inside = element < count
    gate = tl.load(a + element, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(b + element, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + element, gate * tl.sigmoid(gate) * value, mask=inside)


@triton.jit
def backward_kernel(dy, a, b, da, db, count, BLOCK: tl.constexpr):
    element = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = element < count
    slope = tl.load(dy + element, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(a + element, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(b + element, mask=inside, other=0.0).to(tl.float32)
    s = tl.sigmoid(gate)
    tl.store(da + element, slope * (gate * s * (1.0 - s) + s) * value, mask=inside)
    tl.store(db + element, slope * (gate * s), mask=inside)


def check(a: torch.Tensor, b: torch.Tensor) -> None:
    if a.shape != b.shape or a.dtype != b.dtype:
        raise Unsupported(
            f"a {a.dtype}{list(a.shape)} and b {b.dtype}{list(b.shape)}; expected one shape and dtype"
        )


def forward(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor]:
    check(a, b)
    left, right = a.contiguous(), b.contiguous()
    y = torch.empty_like(left)
    if needs_launch(left):
        count = left.numel()
        forward_kernel[(triton.cdiv(count, BLOCK),)](left, right, y, count, BLOCK, num_warps=WARPS)
    return (y,)


def backward(dy: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    slope, left, right = dy.contiguous(), a.contiguous(), b.contiguous()
    da, db = torch.empty_like(left), torch.empty_like(right)
    if needs_launch(left):
        count = left.numel()
        backward_kernel[(triton.cdiv(count, BLOCK),)](
            slope, left, right, da, db, count, BLOCK, num_warps=WARPS
        )
    return da, db


def examples(dtype: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for x in example_matrices(getattr(torch, DTYPES[dtype])):
        yield x, torch.randn_like(x, memory_format=torch.contiguous_format)


def typical(dtype: str, count: int = 16384, device: str = "meta") -> tuple[torch.Tensor, torch.Tensor]:
    a, b = (torch.empty(count, 2816, dtype=getattr(torch, DTYPES[dtype]), device=device) for _ in range(2))
    return a, b


def cost(a: torch.Tensor, b: torch.Tensor) -> tuple[Cost, Cost]:
    n, item = a.numel(), a.element_size()
    return Cost(3 * n * item, 5 * n), Cost(5 * n * item, 10 * n)


def builds(dtype: str, target: str = "sm_80") -> list[Build]:
    def build(name: str, kernel: object, tensors: tuple[str, ...]) -> Build:
        signature = {**dict.fromkeys(tensors, POINTER[dtype]), "count": "i32", "BLOCK": "constexpr"}
        return Build(name, kernel, signature, {"BLOCK": BLOCK}, WARPS, divisible=(*tensors, "count"))

    return [
        build("forward", forward_kernel, ("a", "b", "y")),
        build("backward", backward_kernel, ("dy", "a", "b", "da", "db")),
    ]
