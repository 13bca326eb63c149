"""Which code runs an operation, and what did: Triton, or the reference in aten.

Every fallback is counted with its reason, so that no measurement takes the one for the other. The
modes are

auto        Triton on a GPU, and the reference where an operation does not take its inputs; on a CPU
            aten
triton      the same, but what would fall back raises Unsupported, and so does a tensor that is on
            no GPU
reference   aten everywhere
interpret   Triton everywhere: tensors on a CPU go through the interpreter (TRITON_INTERPRET=1, set
            before triton is imported)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

from .contract import Unsupported

Mode = Literal["auto", "triton", "reference", "interpret"]
# One for the process, not for a thread: the backward pass runs in threads of autograd's own.
_mode: Mode = "auto"
# Operation -> launches of its Triton code.
launched: Counter[str] = Counter()
# (operation, reason) -> calls that took the reference although Triton was asked for. A graph of
# torch.compile counts its fallbacks once, when it is traced.
fallbacks: Counter[tuple[str, str]] = Counter()


@contextmanager
def using(mode: Mode) -> Iterator[None]:
    """Runs the operations within the block in this mode.

    Raises ValueError for another word, and for interpret where Triton was imported without its
    interpreter.
    """
    global _mode
    if mode not in get_args(Mode):
        raise ValueError(f"mode {mode!r} is none of {', '.join(get_args(Mode))}")
    if mode == "interpret":
        from triton import knobs  # here: no other mode asks anything of triton itself

        if not knobs.runtime.interpret:
            raise ValueError(
                "mode interpret needs TRITON_INTERPRET=1 in the environment before triton is imported"
            )
    before, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = before


def reset() -> None:
    """Sets both counters to nothing."""
    launched.clear()
    fallbacks.clear()


def uses_triton(x: torch.Tensor) -> bool:
    """Whether Triton is to run on this tensor.

    Raises Unsupported in mode triton where it cannot.
    """
    if _mode == "triton" and not x.is_cuda:
        raise Unsupported(
            f"mode triton: a tensor is on {x.device}, and Triton runs on GPUs; move it, or use mode auto"
        )
    return _mode != "reference" and (x.is_cuda or _mode == "interpret")


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch gives it no types
def count_fallback(operation: str, reason: str) -> None:
    """Counts one call that took the reference. Raises Unsupported in mode triton."""
    if _mode == "triton":
        raise Unsupported(f"{operation}: {reason}")
    fallbacks[operation, reason] += 1
