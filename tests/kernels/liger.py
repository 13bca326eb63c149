"""Child process: our operations and Liger-Kernel's on the same inputs in the same interpreter.

`python liger.py [OPERATION ...]` prints JSON lines: the distance of both to fp64.

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
from prove import as_tuple, in_fp64, reference_results, rms

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
# Columns: odd, a power of two, one more than that, and many.
WIDTHS = (7, 64, 129, 1024)
# Inputs of each width.
TRIALS = 4


def random_inputs(name: str, width: int, kind: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Inputs of an operation, rows of `width` columns."""
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
    weight = torch.randn(width, dtype=kind)
    return {
        "add_rms_norm": (x, torch.randn_like(x), weight),
        "layer_norm": (x, weight, torch.randn_like(weight)),
        "rms_norm": (x, weight),
        "softmax": (x,),
        "swiglu": (x, torch.randn_like(x)),
    }[name]


def outputs_and_gradients(
    function: Callable[..., Any], op: Any, inputs: dict[str, torch.Tensor], slopes: tuple[torch.Tensor, ...]
) -> list[torch.Tensor]:
    leaves = {name: value.clone().requires_grad_(name in op.GRADIENTS) for name, value in inputs.items()}
    outputs = as_tuple(function(*leaves.values()))
    sought = [leaves[name] for name in op.GRADIENTS]
    gradients = torch.autograd.grad(outputs, sought, tuple(slope.clone() for slope in slopes))
    return [*(output.detach() for output in outputs), *gradients]


def compare(name: str, dtype: str) -> Iterator[dict[str, Any]]:
    """Yields a row for each output and gradient of each input."""
    op, kind = library.operation(name), getattr(torch, DTYPES[dtype])
    parameters = inspect.signature(op.module.forward).parameters
    for width in WIDTHS * TRIALS:
        inputs = dict(zip(parameters, random_inputs(name, width, kind), strict=False))
        outputs = as_tuple(op.module.reference(*inputs.values()))
        slopes = tuple(torch.randn_like(output) for output in outputs)
        exact = reference_results(
            op.module,
            {key: in_fp64(value) for key, value in inputs.items()},
            tuple(slope.double() for slope in slopes),
        )
        with dispatch.using("interpret"):
            ours = outputs_and_gradients(library.function(name), op.module, inputs, slopes)
        theirs = outputs_and_gradients(THEIRS[name], op.module, inputs, slopes)
        labels = [*op.module.RETURNS[: op.outputs], *(f"d{key}" for key in op.module.GRADIENTS)]
        for label, true, mine, other in zip(labels, exact, ours, theirs, strict=True):
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
            for row in compare(operation, precision):
                print(json.dumps(row), flush=True)
