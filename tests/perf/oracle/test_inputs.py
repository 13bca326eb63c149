"""The user's inputs come first and unchanged, and random ones only where the model takes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hotlap.perf.oracle import inputs as inputs_of
from hotlap.perf.oracle import reference, truth
from hotlap.perf.oracle.inputs import InputSets
from hotlap.perf.oracle.recast import Recast
from hotlap.perf.terms.case import Workload
from hotlap.perf.terms.reasons import Refusal


class Does(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *values: torch.Tensor) -> Any:
        return self.function(*values)


def chosen(function: Callable[..., Any], *own: torch.Tensor, **more: Any) -> InputSets:
    """With two batches of each kind and one that is kept back, at the example's own batch."""
    torch.manual_seed(0)
    workload = Workload("w", Does(function), own, **more)
    run = partial(truth.forward_in_fp64, Recast(workload.module, torch.float64), workload)
    return inputs_of.chosen(workload, workload, run, run, 2, 1)


def same(left: tuple[torch.Tensor, ...], right: tuple[torch.Tensor, ...]) -> bool:
    return all(bool((a == b).all()) for a, b in zip(left, right, strict=True))


def test_own_inputs_come_first_and_unchanged() -> None:
    own = torch.randn(3, 4)
    sets = chosen(torch.sin, own)
    assert same(sets.batches["real"][0], (own,))
    assert {kind: len(batches) for kind, batches in sets.batches.items()} == {
        "real": 2,
        "random": 2,
        "fresh": 1,
    }
    assert sets.notes == ()


def test_a_model_without_a_batch_is_fed_its_own_inputs_in_their_order() -> None:
    own = torch.randn(50, 1, 4)
    sets = chosen(lambda x: x.cumsum(0), own, dynamic=False, batched=False)
    assert [same(batch, (own,)) for batch in sets.batches["real"]] == [True]


def test_a_smaller_batch_takes_the_other_rows_of_the_example() -> None:
    own = torch.arange(12.0).view(3, 4)
    example = Workload("w", Does(torch.sin), (own,))
    workload = Workload("w", Does(torch.sin), (own[:1],))
    run = partial(truth.forward_in_fp64, Recast(workload.module, torch.float64), workload)
    batches = inputs_of.chosen(workload, example, run, run, 8, 1).batches["real"]
    assert [batch[0].tolist() for batch in batches] == [[row] for row in own.tolist()]


def softmax_rows(p: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    assert torch.allclose(p.sum(-1), torch.ones(len(p), dtype=p.dtype)), "rows of p must sum to 1"
    return p * n[:, None]


def masked(x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """NaN for a row of which everything is hidden."""
    return (x + torch.where(hidden, -torch.inf, 0.0)).softmax(-1)


def test_an_input_that_random_values_break_stays_lawful() -> None:
    p, n = torch.rand(4, 10).softmax(-1), torch.arange(1, 5)
    sets = chosen(softmax_rows, p, n)
    for batch in sets.batches["random"]:
        torch.testing.assert_close(batch[0].sum(-1), torch.ones(4))
        assert not same(batch[:1], (p,))
    (note,) = sets.notes
    assert "our random inputs do not suit the model" in note and "rows of p must sum to 1" in note
    assert "mend" not in note


def test_offsets_stay_the_users_own_and_the_rest_is_random() -> None:
    bag = nn.EmbeddingBag(100, 8).double()
    ids, offsets = torch.randint(0, 100, (20,)), torch.tensor([0, 5, 9, 14])
    sets = chosen(bag, ids, offsets, dynamic=False, batched=False)
    for batch in sets.batches["random"]:
        assert same(batch[1:], (offsets,)) and not same(batch[:1], (ids,))
    assert "input 1 stayed your own" in sets.notes[0]


def test_inputs_that_only_the_module_as_it_is_refuses_are_left_out(tmp_path: Path) -> None:
    """torch checks the offsets of a bag in fp32 and not in fp64."""
    own = (torch.randint(0, 100, (20,)), torch.tensor([0, 5, 9, 14]))
    workload = Workload("w", nn.EmbeddingBag(100, 8).eval(), own)
    referral = reference.refer(workload, 1, ["fp32"], "cpu", tmp_path, 1)
    assert referral.axis == "whole" and "input 1 stayed your own" in referral.notes[1]
    with np.load(tmp_path / "random.npz") as stored:
        assert (stored["in1"] == own[1].numpy()).all()


def test_infinite_values_of_a_mask_stay_where_they_are() -> None:
    mask = torch.zeros(3, 8)
    mask[:, 6:] = -torch.inf
    sets = chosen(lambda x, added: (x + added).softmax(-1), torch.randn(3, 8), mask)
    assert sets.notes == ()
    assert all(same((batch[1].isinf(),), (mask.isinf(),)) for batch in sets.batches["random"])


def test_draws_that_give_no_number_are_left_out() -> None:
    hidden = torch.zeros(3, 2, dtype=torch.bool)
    sets = chosen(masked, torch.randn(3, 2), hidden)
    assert sets.batches["random"] and all(not batch[1].all(-1).any() for batch in sets.batches["random"])


def test_where_nothing_random_is_taken_the_note_says_what_that_costs() -> None:
    own = torch.arange(3)

    def exactly(x: torch.Tensor) -> torch.Tensor:
        assert x.tolist() == [0, 1, 2]
        return x * 2.0

    sets = chosen(exactly, own, dynamic=False, batched=False)
    assert list(sets.batches) == ["real"]
    assert "outputs are compared on your own alone" in sets.notes[0]


def test_outputs_that_are_no_numbers_on_the_own_inputs_are_the_models_fault() -> None:
    with pytest.raises(Refusal, match="on its own inputs; mend the model or its weights"):
        chosen(lambda x: x / 0, torch.randn(2, 3))


def test_lookalikes_of_complex_numbers_are_complex() -> None:
    value = torch.randn(200, 50, dtype=torch.complex64) + 3
    drawn = inputs_of.lookalike(value)
    assert drawn.dtype == torch.complex64 and drawn.shape == value.shape


def test_lookalikes_have_the_type_range_and_moments_of_the_real_inputs() -> None:
    torch.manual_seed(0)
    floats = inputs_of.lookalike(5 + 3 * torch.randn(100, 100))
    assert (floats.mean().item(), floats.std().item()) == (
        pytest.approx(5, abs=0.15),
        pytest.approx(3, rel=0.05),
    )
    numbers = inputs_of.lookalike(torch.tensor([[2, 4]] * 500, dtype=torch.int32))
    assert (numbers.dtype, set(numbers.unique().tolist())) == (torch.int32, {2, 3, 4})
    flags = inputs_of.lookalike(torch.zeros(500, dtype=torch.bool))
    assert (flags.dtype, set(flags.tolist())) == (torch.bool, {False, True})


@pytest.mark.parametrize("values", [[2**63 - 1, -(2**63)], [2**63 - 1] * 2])
def test_integers_at_the_end_of_their_type_are_drawn(values: list[int]) -> None:
    drawn = inputs_of.lookalike(torch.tensor([values]))
    assert drawn.dtype == torch.int64 and drawn.shape == (1, 2)
