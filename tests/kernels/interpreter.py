"""Triton's interpreter, made to tell the truth; import it first, in a process of its own.

Stock, it rounds fp32 to bf16 by cutting bits off and computes on the bit patterns of bf16 (seen in
Triton 3.8). Here conversions go through torch, and arithmetic on bf16 is done in fp32 and rounded.
Beside that every load and store is watched: outside of its tensor, by two programs on one address,
and how many bytes.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

from hotlap.kernels import chunks

BUILDER = type(interpreter.interpreter_builder)
STOCK = {
    name: getattr(BUILDER, name)
    for name in ("binary_op", "create_dot", "create_masked_load", "create_masked_store")
}
CONVERT = interpreter._convert_float
REDUCE = interpreter.ReduceOps.apply
ARGUMENT = interpreter._implicit_cvt
HOST = interpreter.GridExecutor._init_args_hst


class OutOfBounds(AssertionError):
    """A load or store beside the elements of every tensor that the kernel was given."""


class Race(AssertionError):
    """Two programs stored to one address."""


@dataclass
class Watch:
    """What one launch touched. loaded, stored: addresses with their sizes; writers: address ->
    program.
    """

    kernel: str
    ranges: list[tuple[int, int]] = field(default_factory=list)
    loaded: list[tuple[np.ndarray, int]] = field(default_factory=list)
    stored: list[tuple[np.ndarray, int]] = field(default_factory=list)
    writers: dict[int, Any] = field(default_factory=dict)

    @property
    def moved_bytes(self) -> int:
        """Each address once for loads and once for stores."""
        total = 0
        for accesses in (self.loaded, self.stored):
            for size in {size for _, size in accesses}:
                total += size * len(np.unique(np.concatenate([at for at, one in accesses if one == size])))
        return total

    def touch(self, pointers: Any, mask: Any, size: int, what: list[tuple[np.ndarray, int]]) -> np.ndarray:
        at = (
            np.broadcast_to(pointers, np.broadcast(pointers, mask).shape)[
                np.broadcast_to(mask, np.broadcast(pointers, mask).shape)
            ]
            .astype(np.int64)
            .ravel()
        )
        inside = np.zeros(len(at), bool)
        for low, high in self.ranges:
            inside |= (at >= low) & (at + size <= high)
        if not inside.all():
            raise OutOfBounds(f"{int((~inside).sum())} of {len(at)} accesses are outside of every tensor")
        what.append((at, size))
        return at


LAUNCHES: list[Watch] = []
# Tensors that kernels reach by an address in a table.
FURTHER: list[torch.Tensor] = []
TABLES = chunks.tables


def convert(data: np.ndarray, given: Any, wanted: Any, rounding: Any) -> np.ndarray:
    if given == tl.float32 and wanted == tl.bfloat16:
        return torch.from_numpy(np.array(data, np.float32)).bfloat16().view(torch.uint16).numpy()
    if given == tl.bfloat16 and wanted == tl.float32:
        return (np.asarray(data, np.uint32) << 16).view(np.float32)
    return CONVERT(data, given, wanted, rounding)


def exact(handle: Any) -> Any:
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    return interpreter.TensorHandle(convert(handle.data, tl.bfloat16, tl.float32, None), tl.float32)


def binary_op(self: Any, left: Any, right: Any, op: Any) -> Any:
    if left.dtype.scalar != tl.bfloat16:
        return STOCK["binary_op"](self, left, right, op)
    found = op(exact(left).data, exact(right).data)
    if found.dtype == bool:
        return interpreter.TensorHandle(found, tl.int1)
    return interpreter.TensorHandle(convert(found, tl.float32, tl.bfloat16, None), tl.bfloat16)


def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
    return STOCK["create_dot"](self, exact(a), exact(b), *rest)


def reduce(self: Any, given: Any) -> Any:
    if isinstance(given, tuple) or given.dtype.scalar != tl.bfloat16:
        return REDUCE(self, given)
    found = REDUCE(self, tl.core.tensor(exact(given.handle), tl.block_type(tl.float32, given.shape)))
    rounded = interpreter.TensorHandle(convert(found.handle.data, tl.float32, tl.bfloat16, None), tl.bfloat16)
    return tl.core.tensor(
        rounded, tl.block_type(tl.bfloat16, found.shape) if found.type.is_block() else tl.bfloat16
    )


def argument(value: Any) -> Any:
    """A float that a kernel is given is fp32, as on a GPU; stock it stays Python's, which hides
    what fp32 loses.
    """
    if isinstance(value, float):
        return tl.core.tensor(interpreter.TensorHandle(np.array([value], np.float32), tl.float32), tl.float32)
    return ARGUMENT(value)


def masked_load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
    watch = LAUNCHES[-1]
    watch.touch(pointers.data, mask.data, pointers.get_element_ty().primitive_bitwidth // 8, watch.loaded)
    return STOCK["create_masked_load"](self, pointers, mask, *rest)


def masked_store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
    watch = LAUNCHES[-1]
    at = watch.touch(
        pointers.data, mask.data, pointers.get_element_ty().primitive_bitwidth // 8, watch.stored
    )
    program = tuple(self.grid_idx)
    for address in at.tolist():
        if watch.writers.setdefault(address, program) != program:
            raise Race(f"programs {watch.writers[address]} and {program} store to the same address")
    return STOCK["create_masked_store"](self, pointers, value, mask, *rest)


def on_host(self: Any, arguments: Any, named: Any) -> Any:
    """Every launch is watched anew; a tensor's range is what its elements span, not its storage."""
    made = HOST(self, arguments, named)
    watch = Watch(self.fn.__name__)
    LAUNCHES.append(watch)
    for one in [*made[0], *made[1].values(), *FURTHER]:
        if isinstance(one, torch.Tensor) and one.numel():
            last = sum((size - 1) * stride for size, stride in zip(one.shape, one.stride(), strict=True))
            watch.ranges.append((one.data_ptr(), one.data_ptr() + (last + 1) * one.element_size()))
    return made


def tables(lists: Any) -> Any:
    """Remembers what the addresses in the tables belong to."""
    FURTHER[:] = [one for tensors in lists for one in tensors]
    return TABLES(lists)


def install() -> None:
    chunks.tables = tables
    interpreter._convert_float = convert
    interpreter.GridExecutor._init_args_hst = on_host
    interpreter.ReduceOps.apply = reduce
    interpreter._implicit_cvt = argument
    for name, better in (
        ("binary_op", binary_op),
        ("create_dot", create_dot),
        ("create_masked_load", masked_load),
        ("create_masked_store", masked_store),
    ):
        setattr(BUILDER, name, better)


@contextmanager
def stock() -> Iterator[None]:
    """As Triton has it, to show that the patch is needed."""
    interpreter._convert_float, patched = CONVERT, interpreter._convert_float
    yield
    interpreter._convert_float = patched


install()
