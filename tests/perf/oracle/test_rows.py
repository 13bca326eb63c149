"""Which models have a batch: what moves with the rows, and what only looks as if it did."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from hotlap.perf.oracle import rows, truth
from hotlap.perf.oracle.recast import Recast
from hotlap.perf.terms.case import Workload


class Does(nn.Module):
    """A module of one function and what it needs."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleDict(parts)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs, **self.parts)


def seen(module: nn.Module, *inputs: torch.Tensor) -> str:
    module = module.eval().double()
    workload = Workload("w", module, inputs)
    return rows.look(partial(truth.forward_in_fp64, Recast(module, torch.float64), workload), inputs).axis


def last_step(x: torch.Tensor, lstm: nn.Module) -> torch.Tensor:
    return lstm(x)[0][-1]


LENGTHS = torch.tensor([12, 9, 7, 3])


def padded(x: torch.Tensor, lengths: torch.Tensor, lstm: nn.Module) -> torch.Tensor:
    """As long as the longest of the batch."""
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return nn.utils.rnn.pad_packed_sequence(lstm(packed)[0], batch_first=True)[0]


@pytest.mark.parametrize(
    ("module", "inputs", "axis"),
    [
        (nn.Linear(4, 3), (torch.randn(5, 4),), "free"),
        (nn.Linear(4, 3), (torch.randn(1, 4),), "free"),
        (nn.Linear(4, 3), (torch.ones(1, 4),), "free"),
        (nn.LSTM(4, 3, batch_first=True), (torch.randn(5, 7, 4),), "free"),
        (nn.LSTM(4, 3), (torch.randn(50, 1, 4),), "whole"),
        (Does(last_step, lstm=nn.LSTM(4, 3)), (torch.randn(50, 1, 4),), "whole"),
        (Does(lambda x: x - x.mean(0)), (torch.randn(5, 4),), "whole"),
        (Does(lambda x: (x - x.mean(0)) / x.std(0)), (torch.randn(5, 4),), "whole"),
        (Does(lambda x: (x @ x.T).softmax(-1)), (torch.randn(5, 4),), "whole"),
        (Does(lambda x: x.sum()), (torch.randn(5, 4),), "whole"),
        (Does(lambda x: x.amax(0)), (torch.randn(5, 4),), "whole"),
        (Does(lambda x: x.amax(0)), (torch.tensor([[0.0, 1], [5, 6], [2, 3]]),), "whole"),
        (Does(lambda x: x[-1:]), (torch.randn(5, 4),), "whole"),
        (Does(lambda x: x.cumsum(0)), (torch.randn(5, 4),), "whole"),
        (Does(lambda x: (x, torch.arange(7.0))), (torch.randn(5, 4),), "free"),
        (Does(lambda x: x.T), (torch.randn(5, 4),), "free"),
        (Does(lambda x: x + len(x)), (torch.randn(5, 4),), "fixed"),
        (Does(lambda x: x / len(x)), (torch.randn(1, 4),), "fixed"),
        (Does(lambda x: x.view(4, 2, 16).sum(1)), (torch.randn(4, 32),), "fixed"),
        (Does(lambda x: x.view(4, 2, 16).sum(0)), (torch.randn(4, 32),), "whole"),
        (Does(lambda x: x.view(1, 4)), (torch.randn(1, 4),), "fixed"),
        (Does(lambda x, mask: x + mask), (torch.randn(5, 4, 4), torch.randn(4, 4)), "whole"),
        (Does(lambda x, y: x * y), (torch.randn(5, 4), torch.tensor(2.0)), "whole"),
        (Does(padded, lstm=nn.LSTM(4, 3, batch_first=True)), (torch.randn(4, 12, 4), LENGTHS), "whole"),
    ],
    ids=[
        "linear",
        "a batch of 1",
        "rows all alike",
        "recurrent, and its state's batch is axis 1",
        "time first",
        "time first, last step",
        "centred over the batch",
        "normalised over the batch",
        "contrastive",
        "a sum of all",
        "the largest of all",
        "the largest of all, which is the second",
        "the last row alone",
        "a running sum",
        "a constant besides",
        "the batch comes out last",
        "their number is added",
        "a batch of 1, divided by their number",
        "one batch size",
        "one size, rows mixed",
        "only one row",
        "a mask for all rows",
        "a number",
        "as long as the longest",
    ],
)
def test_dimension_0_is_a_batch_where_rows_are_independent(
    module: nn.Module, inputs: tuple[torch.Tensor, ...], axis: str
) -> None:
    torch.manual_seed(0)
    assert seen(module, *inputs) == axis


def test_batch_norm_in_training_mode_mixes_rows_and_in_eval_mode_does_not() -> None:
    norm = nn.BatchNorm1d(4)
    assert seen(norm, torch.randn(5, 4)) == "free"
    norm.double().train()
    workload = Workload("w", norm, (torch.randn(5, 4),))
    run = partial(truth.forward_in_fp64, Recast(norm, torch.float64), workload)
    assert rows.look(run, workload.inputs).axis == "whole"
