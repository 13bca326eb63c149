"""An operation as a module by itself: aten until `replace` makes it ours.

For measuring one alone, in every back end.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from . import library


class Operation(nn.Module):
    """given: the operation's inputs.

    Tensors are what forward takes, in their order; the others (flags, numbers, None) are kept.
    """

    def __init__(self, name: str, given: tuple[Any, ...]) -> None:
        super().__init__()
        self.operation = name
        self.others = {at: value for at, value in enumerate(given) if not isinstance(value, torch.Tensor)}
        self.count = len(given)

    def forward(self, *tensors: torch.Tensor) -> Any:
        return library.operation(self.operation).module.reference(*self.merged(tensors))

    def merged(self, tensors: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
        rest = iter(tensors)
        return tuple(self.others[at] if at in self.others else next(rest) for at in range(self.count))


class ReplacedOperation(Operation):
    """The same by our operation."""

    hotlap_replaced = True

    def forward(self, *tensors: torch.Tensor) -> Any:
        return library.function(self.operation)(*self.merged(tensors))
