"""What an operation's file holds (ops/__init__.py), as types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses import FakeTensor

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
POINTER = {"fp32": "*fp32", "fp16": "*fp16", "bf16": "*bf16"}


@dataclass(frozen=True)
class Cost:
    """Of one launch.

    moved_bytes: each input read once, each output written once. flops: a fused multiply-add is two,
    an exponential one.
    """

    moved_bytes: int
    flops: int


@dataclass(frozen=True)
class Build:
    """One kernel in one setting, as the compiler needs it ahead of time.

    signature: every argument in order, `*bf16`, `i32`, `fp32` or `constexpr`. divisible: arguments
    that are multiples of 16 (pointers: aligned to 16 bytes) in the setting that is meant to be
    fast. dot: whether it multiplies matrices, which then must be on tensor cores. single_loads:
    loads of one element of two bytes that are meant, such as the logit of a target.
    """

    name: str
    kernel: Any
    signature: dict[str, str]
    constexprs: dict[str, Any]
    warps: int = 4
    stages: int = 2
    divisible: tuple[str, ...] = ()
    dot: bool = False
    single_loads: int = 0


def launches(x: torch.Tensor) -> bool:
    """Whether there is something to launch a kernel on: not for empty tensors, and not where only
    shapes are asked.
    """
    return x.device.type != "meta" and not isinstance(x, FakeTensor) and x.numel() > 0


def architecture(device: torch.device) -> str:
    """What settings depend on: sm_90, gfx942; of what is no GPU (the interpreter, the device meta)
    sm_80.
    """
    if device.type != "cuda":
        return "sm_80"
    properties: Any = torch.cuda.get_device_properties(device)
    return (
        str(properties.gcnArchName).partition(":")[0]
        if torch.version.hip
        else f"sm_{properties.major}{properties.minor}"
    )


class Unsupported(ValueError):
    """Inputs that an operation does not take: one line that says which and what to do."""
