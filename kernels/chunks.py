"""Many tensors in one launch: their addresses, and equal chunks of their elements, as tables that a
kernel reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from .contract import DTYPES, Unsupported

CHUNK = 2048
KINDS = {getattr(torch, long): getattr(tl, long) for long in DTYPES.values()}


@triton.jit
def place(chunks, CHUNK: tl.constexpr):
    """Of this program: its tensor, its first element and how many it has."""
    entry = chunks + tl.program_id(0).to(tl.int64) * 3
    return tl.load(entry), tl.load(entry + 1) * CHUNK, tl.load(entry + 2)


@triton.jit
def pointer(addresses, tensor, kind: tl.constexpr, ALIGNED: tl.constexpr):
    found = tl.load(addresses + tensor).to(tl.pointer_type(kind))
    if ALIGNED:
        found = tl.multiple_of(found, 16)
    return found


def check(lists: Sequence[Sequence[torch.Tensor]]) -> None:
    """Raises Unsupported unless all lists have tensors of the same shapes in the same order in
    memory, without holes, of one dtype a list.
    """
    first = lists[0]
    for tensors in lists:
        if [one.shape for one in tensors] != [one.shape for one in first]:
            raise Unsupported(
                "the lists have tensors of different shapes; expected a gradient and states for each"
                " parameter"
            )
        if len({one.dtype for one in tensors}) > 1:
            raise Unsupported(
                f"tensors of {' and '.join(sorted({str(one.dtype) for one in tensors}))} in one list; call"
                " once for each dtype"
            )
        for at, (one, like) in enumerate(zip(tensors, first, strict=True)):
            if not dense(one) or one.stride() != like.stride():
                raise Unsupported(
                    f"tensor {at} {tuple(one.shape)} has strides {one.stride()}; expected contiguous or"
                    " channels_last, the same in all lists"
                )


def dense(x: torch.Tensor) -> bool:
    return x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))


def tables(lists: Sequence[Sequence[torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """addresses (lists, tensors) and chunks (count, 3), of tensor, number of the chunk in it and
    elements: int64, on the tensors' device.

    And whether every address is a multiple of 16.
    """
    raw = [[one.data_ptr() for one in tensors] for tensors in lists]
    sizes = torch.tensor([one.numel() for one in lists[0]])
    each = -(-sizes // CHUNK)
    tensor = torch.repeat_interleave(each)
    number = torch.arange(len(tensor)) - (each.cumsum(0) - each)[tensor]
    rows = torch.stack((tensor, number, (sizes[tensor] - number * CHUNK).clamp(max=CHUNK)), 1)
    device = lists[0][0].device
    host = [
        table.pin_memory() if device.type == "cuda" else table
        for table in (torch.tensor(raw, dtype=torch.int64), rows)
    ]
    addresses, chunks = (table.to(device, non_blocking=True) for table in host)
    return addresses, chunks, all(address % 16 == 0 for row in raw for address in row)


def table_bytes(tensors: Sequence[torch.Tensor], lists: int) -> tuple[int, int]:
    """Bytes that a launch reads of both tables, and its chunks."""
    count = sum(-(-one.numel() // CHUNK) for one in tensors)
    return 24 * count + 8 * lists * sum(one.numel() > 0 for one in tensors), count
