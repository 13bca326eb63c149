"""What an operation's file holds (ops/__init__.py), as types, and what all of them need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch._subclasses import FakeTensor

# Precision -> the name of its dtype in torch and in triton.language.
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
# Precision -> how a Triton signature writes a pointer to its elements.
POINTER = {"fp32": "*fp32", "fp16": "*fp16", "bf16": "*bf16"}


class Unsupported(ValueError):
    """Inputs that an operation does not take: one line that says which and what to do."""


@dataclass(frozen=True)
class Cost:
    """What one launch of a kernel must at least move and compute."""

    # Each input read once and each output written once, B.
    moved_bytes: int
    # Floating-point operations; a fused multiply-add is two, an exponential one.
    flops: int


@dataclass(frozen=True)
class Build:
    """One kernel in one setting, as the compiler needs it ahead of time."""

    # What the kernel does in its operation: "forward", "backward", "backward_keys".
    name: str
    # The function that triton.jit made.
    kernel: Any
    # Type of every argument, in order: "*bf16", "i32", "fp32" or "constexpr".
    signature: dict[str, str]
    # Value of every argument that is a constexpr.
    constexprs: Mapping[str, object]
    # Warps of a program, of 32 threads each.
    warps: int = 4
    # Stages of the software pipeline of a loop.
    stages: int = 2
    # Arguments that are multiples of 16 (pointers: aligned to 16 bytes) in the setting that is
    # meant to be fast.
    divisible: tuple[str, ...] = ()
    # Whether it multiplies matrices, which then must be on tensor cores.
    dot: bool = False
    # Loads of one element of two bytes that are meant, such as the logit of a target.
    single_loads: int = 0
    # Whether a product and a sum may become one instruction, which rounds once.
    fused: bool = True


class OperationFile(Protocol):
    """The names that every file of ops/ defines, as ops/__init__.py explains them.

    Those that only some files define are fields of library.Operation, which knows their defaults.
    """

    @property
    def RETURNS(self) -> tuple[str, ...]: ...
    @property
    def GRADIENTS(self) -> tuple[str, ...]: ...
    @property
    def reference(self) -> Callable[..., Any]: ...
    @property
    def forward(self) -> Callable[..., Any]: ...
    @property
    def check(self) -> Callable[..., None]: ...
    @property
    def examples(self) -> Callable[[str], Iterator[tuple[Any, ...]]]: ...
    @property
    def typical(self) -> Callable[..., tuple[Any, ...]]: ...
    @property
    def cost(self) -> Callable[..., Sequence[Cost]]: ...
    @property
    def builds(self) -> Callable[..., list[Build]]: ...


def needs_launch(x: torch.Tensor) -> bool:
    """Whether there is something to launch a kernel on: not for an empty tensor, and not where only
    shapes are asked for (fake tensors, the device meta).
    """
    return x.device.type != "meta" and not isinstance(x, FakeTensor) and x.numel() > 0


def architecture(device: torch.device) -> str:
    """The name of a device's architecture, on which settings depend, such as sm_90 or gfx942.

    It is sm_80 for what is no GPU (the interpreter, the device meta).
    """
    if device.type != "cuda":
        return "sm_80"
    properties: Any = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return str(properties.gcnArchName).partition(":")[0]
    return f"sm_{properties.major}{properties.minor}"
