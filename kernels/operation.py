"""An operation as a module by itself: aten until `replace` makes it ours.

It is for measuring one operation alone, in every backend.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from . import library


class OperationModule(nn.Module):
    """An operation with its inputs: tensors are what forward takes, in their order, and the other
    inputs (flags, numbers, None) are kept.
    """

    def __init__(self, name: str, inputs: tuple[Any, ...]) -> None:
        super().__init__()
        self.operation = name
        self.constants = {
            index: value for index, value in enumerate(inputs) if not isinstance(value, torch.Tensor)
        }
        self.count = len(inputs)

    def forward(self, *tensors: torch.Tensor) -> Any:
        """What the operation's reference gives."""
        return library.operation(self.operation).module.reference(*self.merge(tensors))

    def merge(self, tensors: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
        """All inputs of the operation, the kept ones in their places among the tensors."""
        rest = iter(tensors)
        return tuple(
            self.constants[index] if index in self.constants else next(rest) for index in range(self.count)
        )


class ReplacedOperationModule(OperationModule):
    """The same by our operation."""

    hotlap_replaced = True

    def forward(self, *tensors: torch.Tensor) -> Any:
        """What our operation gives: Triton's result where Triton is wanted."""
        return library.function(self.operation)(*self.merge(tensors))
