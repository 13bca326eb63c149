"""Triton's interpreter, made to tell the truth; import it first, in a process of its own.

Stock, it rounds fp32 to bf16 by cutting bits off and computes on the bit patterns of bf16 (seen in
Triton 3.8). Here conversions go through torch, and arithmetic on bf16 is done in fp32 and rounded.
Beside that every load and store is watched: whether it is inside of its tensor, whether two
programs store to one address, and how many bytes it moves.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

from hotlap.kernels import chunks

# What is patched, and what was there before.
BUILDER = type(interpreter.interpreter_builder)
STOCK = {
    name: getattr(BUILDER, name)
    for name in ("binary_op", "create_dot", "create_masked_load", "create_masked_store")
}
CONVERT = interpreter._convert_float
REDUCE = interpreter.ReduceOps.apply
ARGUMENT = interpreter._implicit_cvt
HOST = interpreter.GridExecutor._init_args_hst
PATCH_LANGUAGE = interpreter._patch_lang
NUMPY_DTYPE = cache(interpreter._get_np_dtype)


class OutOfBounds(AssertionError):
    """A load or store beside the elements of every tensor that the kernel got."""


class WriteConflict(AssertionError):
    """Two programs stored to one address."""


@dataclass
class Watch:
    """What one launch touched."""

    # Name of the kernel's function.
    kernel: str
    # First address of each tensor, and the first after it.
    ranges: list[tuple[int, int]] = field(default_factory=list)
    # Addresses of each load, with the size of an element in bytes.
    loaded: list[tuple[np.ndarray, int]] = field(default_factory=list)
    # The same of each store.
    stored: list[tuple[np.ndarray, int]] = field(default_factory=list)
    # Address -> the program that stored to it.
    writers: dict[int, Any] = field(default_factory=dict)

    @property
    def moved_bytes(self) -> int:
        """Bytes moved, each address counted once for loads and once for stores."""
        total = 0
        for accesses in (self.loaded, self.stored):
            for size in {size for _, size in accesses}:
                addresses = [addresses for addresses, element in accesses if element == size]
                total += size * len(np.unique(np.concatenate(addresses)))
        return total

    def touch(
        self, pointers: Any, mask: Any, size: int, accesses: list[tuple[np.ndarray, int]]
    ) -> np.ndarray:
        """Adds the addresses that are not masked to the accesses, and returns them.

        Raises OutOfBounds where one is in no tensor.
        """
        pointers, mask = np.broadcast_arrays(pointers, mask)
        addresses = pointers[mask].astype(np.int64).ravel()
        inside = np.zeros(len(addresses), bool)
        for low, high in self.ranges:
            inside |= (addresses >= low) & (addresses + size <= high)
        if not inside.all():
            outside = int((~inside).sum())
            raise OutOfBounds(f"{outside} of {len(addresses)} accesses are outside of every tensor")
        accesses.append((addresses, size))
        return addresses


# One for each launch, in order.
LAUNCHES: list[Watch] = []
# Ids of the globals of functions for which the language is patched in the present launch.
PATCHED: set[int] = set()
# Tensors that kernels reach by an address in a table.
FURTHER: list[torch.Tensor] = []
MAKE_TABLES = chunks.make_tables


def convert(data: np.ndarray, source: Any, target: Any, rounding: Any) -> np.ndarray:
    """The data of dtype `source` in dtype `target`; bf16 is rounded to nearest even."""
    if source == tl.float32 and target == tl.bfloat16:
        return torch.from_numpy(np.array(data, np.float32)).bfloat16().view(torch.uint16).numpy()
    if source == tl.bfloat16 and target == tl.float32:
        return (np.asarray(data, np.uint32) << 16).view(np.float32)
    return CONVERT(data, source, target, rounding)


def exact(handle: Any) -> Any:
    """A bf16 handle in fp32, any other as it is."""
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    return interpreter.TensorHandle(convert(handle.data, tl.bfloat16, tl.float32, None), tl.float32)


def binary_op(self: Any, left: Any, right: Any, op: Any) -> Any:
    """Computes on bf16 in fp32 and rounds."""
    if left.dtype.scalar != tl.bfloat16:
        return STOCK["binary_op"](self, left, right, op)
    result = op(exact(left).data, exact(right).data)
    if result.dtype == bool:
        return interpreter.TensorHandle(result, tl.int1)
    return interpreter.TensorHandle(convert(result, tl.float32, tl.bfloat16, None), tl.bfloat16)


def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
    """Multiplies matrices of bf16 in fp32."""
    return STOCK["create_dot"](self, exact(a), exact(b), *rest)


def reduce(self: Any, values: Any) -> Any:
    """Reduces bf16 in fp32 and rounds the result."""
    if isinstance(values, tuple) or values.dtype.scalar != tl.bfloat16:
        return REDUCE(self, values)
    result = REDUCE(self, tl.core.tensor(exact(values.handle), tl.block_type(tl.float32, values.shape)))
    data = convert(result.handle.data, tl.float32, tl.bfloat16, None)
    kind = tl.block_type(tl.bfloat16, result.shape) if result.type.is_block() else tl.bfloat16
    return tl.core.tensor(interpreter.TensorHandle(data, tl.bfloat16), kind)


def argument(value: Any) -> Any:
    """Makes a float argument of a kernel fp32, as on a GPU.

    Stock, it stays Python's, which hides what fp32 loses.
    """
    if isinstance(value, float):
        return tl.core.tensor(interpreter.TensorHandle(np.array([value], np.float32), tl.float32), tl.float32)
    return ARGUMENT(value)


def masked_load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
    """Watches a load."""
    watch = LAUNCHES[-1]
    watch.touch(pointers.data, mask.data, pointers.get_element_ty().primitive_bitwidth // 8, watch.loaded)
    return STOCK["create_masked_load"](self, pointers, mask, *rest)


def masked_store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
    """Watches a store. Raises WriteConflict where another program stored to the same address."""
    watch = LAUNCHES[-1]
    size = pointers.get_element_ty().primitive_bitwidth // 8
    addresses = watch.touch(pointers.data, mask.data, size, watch.stored)
    program = tuple(self.grid_idx)
    for address in addresses.tolist():
        if watch.writers.setdefault(address, program) != program:
            raise WriteConflict(f"programs {watch.writers[address]} and {program} store to the same address")
    return STOCK["create_masked_store"](self, pointers, value, mask, *rest)


def on_host(self: Any, arguments: Any, named: Any) -> Any:
    """Begins to watch a launch; a tensor's range is what its elements span, not its storage."""
    host = HOST(self, arguments, named)
    watch = Watch(self.fn.__name__)
    LAUNCHES.append(watch)
    positional, by_name = host[:2]
    for value in [*positional, *by_name.values(), *FURTHER]:
        if isinstance(value, torch.Tensor) and value.numel():
            last = sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
            start = value.data_ptr()
            watch.ranges.append((start, start + (last + 1) * value.element_size()))
    return host


def patch_language(function: Any) -> Any:
    """Patches the language for a function as Triton does, but once a launch.

    Stock, each call of tl.sum and the like does it again, which takes a quarter of all time.
    """
    names = id(function.__globals__)
    if names in PATCHED:
        return interpreter._LangPatchScope()
    scope = PATCH_LANGUAGE(function)
    if not PATCHED:  # a launch begins, which restores the language in the end
        restore = scope.restore
        scope.restore = lambda: (PATCHED.clear(), restore())
    PATCHED.add(names)
    return scope


def numpy_dtype(kind: Any) -> np.dtype:
    """NumPy's dtype of a tensor's elements as Triton has it, which makes a table at each call."""
    return np.dtype(np.uint64) if isinstance(kind.scalar, tl.pointer_type) else NUMPY_DTYPE(kind.scalar)


def make_tables(lists: Any, chunk: int) -> Any:
    """Remembers what the addresses in the tables belong to."""
    FURTHER[:] = [tensor for tensors in lists for tensor in tensors]
    return MAKE_TABLES(lists, chunk)


def install() -> None:
    """Puts all of the above in the place of Triton's own."""
    chunks.make_tables = make_tables
    interpreter._convert_float = convert
    interpreter.GridExecutor._init_args_hst = on_host
    interpreter.ReduceOps.apply = reduce
    interpreter._patch_lang = patch_language
    interpreter._get_np_dtype = numpy_dtype
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
    """Converts as Triton does within the block, to show that the patch is needed."""
    interpreter._convert_float, patched = CONVERT, interpreter._convert_float
    yield
    interpreter._convert_float = patched


install()
