"""Many tensors in one launch: their addresses, and equal chunks of their elements, as tables that a
kernel reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from .contract import DTYPES, Unsupported

# Elements of a chunk, which one program takes: eight for each thread of 8 warps.
CHUNK = 2048
# torch's dtype -> Triton's.
KINDS = {getattr(torch, name): getattr(tl, name) for name in DTYPES.values()}


@triton.jit
def locate_chunk(chunks, CHUNK: tl.constexpr):
    """The number of this program's tensor, the first of its elements and how many there are."""
    entry = chunks + tl.program_id(0).to(tl.int64) * 3
    return tl.load(entry), tl.load(entry + 1) * CHUNK, tl.load(entry + 2)


@triton.jit
def pointer(addresses, tensor, kind: tl.constexpr, ALIGNED: tl.constexpr):
    """A pointer to the first element of a tensor."""
    address = tl.load(addresses + tensor).to(tl.pointer_type(kind))
    if ALIGNED:
        address = tl.multiple_of(address, 16)
    return address


def check_lists(lists: Sequence[Sequence[torch.Tensor]]) -> None:
    """Raises Unsupported unless all lists have tensors of the same shapes in the same order in
    memory, without holes, of one dtype a list.
    """
    first = lists[0]
    for tensors in lists:
        if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in first]:
            raise Unsupported(
                "the lists have tensors of different shapes; expected a gradient and states for each"
                " parameter"
            )
        dtypes = sorted({str(tensor.dtype) for tensor in tensors})
        if len(dtypes) > 1:
            raise Unsupported(f"tensors of {' and '.join(dtypes)} in one list; call once for each dtype")
        for index, (tensor, like) in enumerate(zip(tensors, first, strict=True)):
            if not is_dense(tensor) or tensor.stride() != like.stride():
                raise Unsupported(
                    f"tensor {index} {tuple(tensor.shape)} has strides {tensor.stride()}; expected contiguous"
                    " or channels_last, the same in all lists"
                )


def is_dense(x: torch.Tensor) -> bool:
    """Whether the elements fill their memory without holes, contiguous or channels_last."""
    return x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))


def make_tables(lists: Sequence[Sequence[torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """The tables of addresses (lists, tensors) and of chunks (count, 3), and whether every address
    is a multiple of 16.

    A chunk's row is its tensor, its number in that tensor, and how many elements it has. Both
    tables are int64, on the tensors' device.
    """
    addresses = [[tensor.data_ptr() for tensor in tensors] for tensors in lists]
    sizes = torch.tensor([tensor.numel() for tensor in lists[0]])
    counts = -(-sizes // CHUNK)  # chunks of each tensor
    tensor = torch.repeat_interleave(counts)
    number = torch.arange(len(tensor)) - (counts.cumsum(0) - counts)[tensor]
    chunks = torch.stack((tensor, number, (sizes[tensor] - number * CHUNK).clamp(max=CHUNK)), 1)
    device = lists[0][0].device
    on_host = (torch.tensor(addresses, dtype=torch.int64), chunks)
    if device.type == "cuda":
        on_host = (on_host[0].pin_memory(), on_host[1].pin_memory())
    aligned = all(address % 16 == 0 for row in addresses for address in row)
    return on_host[0].to(device, non_blocking=True), on_host[1].to(device, non_blocking=True), aligned


def table_bytes(tensors: Sequence[torch.Tensor], lists: int) -> tuple[int, int]:
    """Bytes that a launch reads of both tables, and how many chunks there are."""
    count = sum(-(-tensor.numel() // CHUNK) for tensor in tensors)
    return 24 * count + 8 * lists * sum(tensor.numel() > 0 for tensor in tensors), count
