"""What rounding may cost is what rounds: operators that select or give whole numbers do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from hotlap.perf.oracle.rounding import cost, moved_by

X = torch.linspace(1, 7, 64, dtype=torch.float64)


@pytest.mark.parametrize(
    "select",
    [
        lambda x: torch.full((4,), float(int((x[0] * 160).round()))),
        lambda x: x.clamp(2, 5),
        lambda x: x.sort().values,
        lambda x: x.reshape(8, 8).max(0).values,
        lambda x: x[torch.tensor([3, 1])],
        lambda x: torch.relu(x - x).sign(),
    ],
    ids=["a whole number as a size", "clamp", "sort", "max", "index", "sign"],
)
def test_what_selects_costs_nothing(select: Callable[[torch.Tensor], torch.Tensor]) -> None:
    (seen,) = cost(moved_by(lambda: (select(X),)), (select(X),))
    assert seen.whole == 0


def test_what_computes_costs_half_an_ulp() -> None:
    (seen,) = cost(moved_by(lambda: (torch.exp(X),)), (torch.exp(X),))
    ulps = seen.whole / float(torch.exp(X).square().mean().sqrt()) / 2**-23
    assert 0.3 < ulps < 0.7
