"""Many tensors in one launch: their addresses, and equal chunks of their elements, as tables that a
kernel reads.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from .contract import DTYPES, Unsupported

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


class Tables(NamedTuple):
    """What a kernel reads to find its elements, int64, on the tensors' device."""

    # Of the first elements (lists, tensors).
    addresses: torch.Tensor
    # Of each chunk its tensor, its number in that tensor, and how many elements it has (count, 3).
    chunks: torch.Tensor
    # Whether every address is a multiple of 16.
    aligned: bool


# Tables by what they were made of, the least recently used first.
TABLES: OrderedDict[tuple[Hashable, ...], Tables] = OrderedDict()
# Most of them: a step of training needs one for clipping and one for each group of parameters.
MOST = 32
# Tables that a captured CUDA graph reads whenever it is replayed.
CAPTURED: list[Tables] = []


def make_tables(lists: Sequence[Sequence[torch.Tensor]], chunk: int) -> Tables:
    """Returns the tables of tensors that are cut into chunks of `chunk` elements.

    They are made once for the same addresses and sizes: to make and copy them took 1.0 ms for 48
    matrices, eight times the kernel that read them (H200). Raises Unsupported in the capture of a
    CUDA graph where they are not there yet, since a copy from the host would be captured too.
    """
    device = lists[0][0].device
    addresses = tuple(tuple(tensor.data_ptr() for tensor in tensors) for tensors in lists)
    sizes = tuple(tensor.numel() for tensor in lists[0])
    key = (device, stream(device), chunk, addresses, sizes)
    captured = capturing(device)
    if key in TABLES:
        TABLES.move_to_end(key)
    elif captured:
        raise Unsupported(
            "the tables of these tensors cannot be made in the capture of a CUDA graph; call it once"
            " before on the same tensors and stream"
        )
    else:
        TABLES[key] = new_tables(addresses, sizes, chunk, device)
        if len(TABLES) > MOST:
            TABLES.popitem(last=False)
    if captured:
        CAPTURED.append(TABLES[key])
    return TABLES[key]


def stream(device: torch.device) -> int:
    """The present stream: what one copies is not there yet on another. 0 on a CPU."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


def capturing(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def new_tables(
    addresses: tuple[tuple[int, ...], ...], sizes: tuple[int, ...], chunk: int, device: torch.device
) -> Tables:
    elements = torch.tensor(sizes)
    counts = -(-elements // chunk)  # chunks of each tensor
    tensor = torch.repeat_interleave(counts)
    number = torch.arange(len(tensor)) - (counts.cumsum(0) - counts)[tensor]
    rows = torch.stack((tensor, number, (elements[tensor] - number * chunk).clamp(max=chunk)), 1)
    aligned = all(address % 16 == 0 for row in addresses for address in row)
    return Tables(torch.tensor(addresses, dtype=torch.int64).to(device), rows.to(device), aligned)


def table_bytes(tensors: Sequence[torch.Tensor], lists: int, chunk: int) -> tuple[int, int]:
    """Bytes that a launch reads of both tables, and how many chunks there are."""
    count = sum(-(-tensor.numel() // chunk) for tensor in tensors)
    return 24 * count + 8 * lists * sum(tensor.numel() > 0 for tensor in tensors), count
