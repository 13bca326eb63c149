"""Child process: our operations and Liger-Kernel's on the same inputs in the same interpreter.

`python liger.py` prints JSON lines: distance to fp64 of both.

Contiguous inputs only. Liger's functions are those of bench/beside_liger.py; some write gradients
in place, so each side gets its own copies.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))
import interpreter  # first: it decides what Triton is
import torch
import triton
import triton.language as tl
from liger_kernel.ops import fused_add_rms_norm, layer_norm, rms_norm
from prove import gradients, raised, rms, several

from bench.beside_liger import their_functions
from hotlap.kernels import dispatch, library
from hotlap.kernels.contract import DTYPES


@triton.jit
def rsqrt(x):
    """Theirs is a call into libdevice, which the interpreter does not have."""
    return tl.rsqrt(x)


for module in (fused_add_rms_norm, layer_norm, rms_norm):
    module.rsqrt = rsqrt


THEIRS = their_functions()
WIDTHS, TRIALS = (7, 64, 129, 1024), 4


def inputs(name: str, width: int, kind: torch.dtype) -> tuple[torch.Tensor, ...]:
    if name == "cross_entropy":
        return torch.randn(12, width, dtype=kind) * 4, torch.randint(width, (12,))
    if name == "fused_linear_cross_entropy":
        return (
            torch.randn(12, width, dtype=kind),
            torch.randn(50, width, dtype=kind) * 4 / width**0.5,
            torch.randint(50, (12,)),
        )
    if name == "rotary":
        half = min(64, width)
        angles = torch.rand(5, half) * 6.28
        return torch.randn(2, 3, 5, 2 * half, dtype=kind), angles.cos().to(kind), angles.sin().to(kind)
    x = torch.randn(12, width, dtype=kind)
    one = torch.randn(width, dtype=kind)
    return {
        "add_rms_norm": (x, torch.randn_like(x), one),
        "layer_norm": (x, one, torch.randn_like(one)),
        "rms_norm": (x, one),
        "softmax": (x,),
        "swiglu": (x, torch.randn_like(x)),
    }[name]


def outcome(
    function: Callable[..., Any], op: Any, given: dict[str, torch.Tensor], slopes: tuple[torch.Tensor, ...]
) -> list[torch.Tensor]:
    """Outputs, then gradients."""
    leaves = {name: value.clone().requires_grad_(name in op.GRADIENTS) for name, value in given.items()}
    outputs = several(function(*leaves.values()))
    found = torch.autograd.grad(
        outputs, [leaves[name] for name in op.GRADIENTS], tuple(slope.clone() for slope in slopes)
    )
    return [*(one.detach() for one in outputs), *found]


def compared(name: str, dtype: str) -> Iterator[dict[str, Any]]:
    op, kind = library.operation(name), getattr(torch, DTYPES[dtype])
    for width in WIDTHS * TRIALS:
        given = dict(
            zip(inspect.signature(op.module.forward).parameters, inputs(name, width, kind), strict=False)
        )
        slopes = tuple(torch.randn_like(one) for one in several(op.module.reference(*given.values())))
        exact = gradients(
            op.module,
            {key: raised(value) for key, value in given.items()},
            tuple(slope.double() for slope in slopes),
        )
        with dispatch.using("interpret"):
            ours = outcome(library.function(name), op.module, given, slopes)
        theirs = outcome(THEIRS[name], op.module, given, tuple(slope.clone() for slope in slopes))
        what = [*op.module.RETURNS[: op.outputs], *(f"d{one}" for one in op.module.GRADIENTS)]
        for label, true, mine, other in zip(what, exact, ours, theirs, strict=True):
            yield {
                "op": name,
                "dtype": dtype,
                "width": width,
                "what": label,
                "scale": rms(true),
                "ours": rms(mine.double() - true),
                "theirs": rms(other.double() - true),
            }


if __name__ == "__main__":
    interpreter.LAUNCHES.clear()
    torch.manual_seed(0)
    for operation in sys.argv[1:] or THEIRS:
        for precision in DTYPES:
            for row in compared(operation, precision):
                print(json.dumps(row), flush=True)
