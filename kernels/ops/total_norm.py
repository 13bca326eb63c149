"""The norm of all elements of all tensors, in one launch and one sum: what clipping needs.

norm = sqrt(sum of squares). tensors: a list of contiguous ones of one dtype; fp32, fp16, bf16; norm
() fp32. Raises Unsupported for others. Without a gradient. Pascanu, Mikolov and Bengio, On the
difficulty of training recurrent neural networks, https://arxiv.org/abs/1211.5063.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from ..chunks import KINDS, check_lists, locate_chunk, make_tables, pointer, table_bytes
from ..contract import DTYPES, Build, Cost, architecture, needs_launch

RETURNS = ("norm",)
GRADIENTS = ()
# Elements of a chunk: with 2,048 it took 1.7 times as long on an H200 (docs/results/h200.md).
CHUNK = 8192
# The same on sm_120, where the larger one spills registers.
SM_120_CHUNK = 2048
WARPS = 8


def reference(tensors: list[torch.Tensor]) -> torch.Tensor:
    wide = torch.float64 if tensors[0].dtype == torch.float64 else torch.float32
    return torch.nn.utils.get_total_norm([tensor.to(wide) for tensor in tensors])


@triton.jit
def squares_kernel(
    addresses, chunks, partial, KIND: tl.constexpr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr
):
    """Each program leaves the sum of squares of one chunk."""
    tensor, first, count = locate_chunk(chunks, CHUNK)
    offset = first + tl.arange(0, CHUNK)  # (CHUNK,)
    start = pointer(addresses, tensor, KIND, ALIGNED)
    if count == CHUNK:
        value = tl.load(start + first + tl.arange(0, CHUNK)).to(tl.float32)
    else:
        value = tl.load(start + offset, mask=offset < first + count, other=0.0).to(tl.float32)
    tl.store(partial + tl.program_id(0), tl.sum(value * value, 0))


def chunk_on(target: str) -> int:
    """Elements of a chunk on an architecture."""
    return SM_120_CHUNK if target == "sm_120" else CHUNK


def check(tensors: list[torch.Tensor]) -> None:
    check_lists([tensors])


def forward(tensors: list[torch.Tensor]) -> tuple[torch.Tensor]:
    check(tensors)
    filled = [tensor for tensor in tensors if needs_launch(tensor)]
    if not filled:
        return (torch.zeros((), dtype=torch.float32, device=tensors[0].device),)
    size = chunk_on(architecture(filled[0].device))
    addresses, chunks, aligned = make_tables([filled], size)
    partial = torch.empty(len(chunks), dtype=torch.float32, device=filled[0].device)
    squares_kernel[(len(chunks),)](
        addresses, chunks, partial, KINDS[filled[0].dtype], aligned, size, num_warps=WARPS
    )
    return (partial.sum(dtype=torch.float64).sqrt().float(),)


def example_lists(dtype: str) -> Iterator[list[torch.Tensor]]:
    """Yields lists at the edges: one element, a chunk and one more, empty tensors between others, a
    view that is not aligned.
    """
    kind = getattr(torch, DTYPES[dtype])
    yield [torch.randn(1, dtype=kind)]
    yield [
        torch.randn(3, 5, dtype=kind),
        torch.randn(0, dtype=kind),
        torch.randn(CHUNK + 1, dtype=kind),
        torch.randn((), dtype=kind),
    ]
    yield [torch.randn(2, CHUNK, dtype=kind), torch.randn(7, dtype=kind)]
    yield [torch.randn(CHUNK + 34, dtype=kind)[1:], torch.randn(64, dtype=kind)]
    yield [
        torch.randn(2, 3, 5, 7, dtype=kind).contiguous(memory_format=torch.channels_last),
        torch.randn(16, dtype=kind),
    ]
    yield [torch.randn(size, dtype=kind) for size in range(1, 8)]
    yield [torch.randn(CHUNK - 1, dtype=kind), torch.randn(CHUNK, dtype=kind)]
    yield [torch.randn(3, 33, dtype=kind)]


def examples(dtype: str) -> Iterator[tuple[list[torch.Tensor]]]:
    return ((tensors,) for tensors in example_lists(dtype))


def typical(dtype: str, count: int = 12, device: str = "meta") -> tuple[list[torch.Tensor]]:
    """The four matrices of each of `count` blocks of a transformer of width 768."""
    kind = getattr(torch, DTYPES[dtype])
    return (
        [
            torch.empty(shape, dtype=kind, device=device)
            for _ in range(count)
            for shape in ((2304, 768), (768, 768), (3072, 768), (768, 3072))
        ],
    )


def cost(tensors: list[torch.Tensor]) -> tuple[Cost]:
    n, (read, count) = sum(tensor.numel() for tensor in tensors), table_bytes(tensors, 1, CHUNK)
    return (Cost(n * tensors[0].element_size() + read + 4 * count, 2 * n),)


def builds(dtype: str, target: str = "sm_80") -> list[Build]:
    last = {"KIND": getattr(tl, DTYPES[dtype]), "ALIGNED": True, "CHUNK": chunk_on(target)}
    signature = {
        "addresses": "*i64",
        "chunks": "*i64",
        "partial": "*fp32",
        **dict.fromkeys(last, "constexpr"),
    }
    # The last chunk of a tensor is masked element by element, in a branch of its own.
    tail = chunk_on(target) // (32 * WARPS) if dtype != "fp32" else 0
    return [
        Build(
            "forward",
            squares_kernel,
            signature,
            last,
            WARPS,
            divisible=("addresses", "chunks", "partial"),
            single_loads=tail,
        )
    ]
