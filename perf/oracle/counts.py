"""What one call of a module does: operations, operators, and the longest sum."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ..terms.case import Workload


class Counts(NamedTuple):
    """What one call of the batch does.

    flops: of matrix products, convolutions and attention. operators: calls of aten. terms: the
    longest sum behind any element.
    """

    flops: int
    operators: int
    terms: int


def counted(workload: Workload) -> Counts:
    """Returns the counts of one eager call (torch.utils.flop_counter; a dispatch mode)."""
    count, terms = 0, 1

    class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its metaclass has no types
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal count, terms
            output = func(*args, **(kwargs or {}))
            count += 1
            tensors = [value for value in args if isinstance(value, torch.Tensor)]
            terms = max(terms, summed(func.overloadpacket.__name__, tensors, output))
            return output

    with torch.no_grad():
        with FlopCounterMode(display=False) as flops:
            workload.module(*workload.inputs)
        with Operators():  # type: ignore[no-untyped-call]
            workload.module(*workload.inputs)
    return Counts(int(flops.get_total_flops()), count, terms)


def summed(name: str, tensors: list[torch.Tensor], output: Any) -> int:
    """Returns how many terms an operator sums for one element.

    That is the inner dimension of a product, the filter's size, the number of keys, or what a
    reduction takes together.
    """
    if name in ("mm", "addmm", "bmm", "baddbmm") and len(tensors) >= 2:
        return tensors[-1].shape[-2]
    if "conv" in name and len(tensors) >= 2:
        return tensors[1][0].numel()
    if "attention" in name and len(tensors) >= 2:
        return max(tensors[1].shape[-2:])
    if (
        tensors
        and isinstance(output, torch.Tensor)
        and 0 < output.numel() < tensors[0].numel()
        and name in ("mean", "sum", "_adaptive_avg_pool2d", "avg_pool2d")
    ):
        return tensors[0].numel() // output.numel()
    return 1
