"""The reference outputs: fp64 eager against arithmetic in NumPy, and what cannot be a reference is
refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hotlap.perf.oracle import check, reference
from hotlap.perf.oracle.recast import Recast
from hotlap.perf.terms.case import Evaluation, Workload
from hotlap.perf.terms.reasons import Refusal
from hotlap.perf.terms.work import Subject, TaskMetric


class Does(nn.Module):
    """A module of one function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def workload(module: nn.Module, *inputs: torch.Tensor, **more: Any) -> Workload:
    return Workload("w", module.eval(), inputs, **more)


def refer(
    subject: Workload, folder: Path, batch: int = 2, precisions: tuple[str, ...] = ("fp32", "bf16")
) -> Subject:
    return reference.refer(subject, batch, precisions, "cpu", folder, 1).subject


@pytest.fixture
def linear() -> Workload:
    """Linear 4 -> 3 with a validation split of 10 rows; scores: how many rows the outputs have, and
    their mean.
    """
    torch.manual_seed(1)
    split = Evaluation(
        (torch.randn(10, 4),),
        lambda outs: {"rows": len(outs[0]), "mean": outs[0].mean()},
        "mean",
        "higher",
        0.01,
    )
    return workload(
        nn.Linear(4, 3), torch.randn(2, 4), items=5, item="row", evaluate=split, weights="random, seed 1"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def test_the_reference_is_fp64_arithmetic_and_eager_that_of_the_precision(
    linear: Workload, folder: Path
) -> None:
    refer(linear, folder)
    weight, bias = (value.detach().numpy().astype(np.float64) for value in linear.module.parameters())
    for name in ("random", "real"):
        with np.load(folder / f"{name}.npz") as stored:
            assert sorted(stored.files) == ["eager-bf16-0", "eager-fp32-0", "in0", "ref0", "rounding0"]
            assert stored["in0"].shape == (4, 2, 4)
            exact = stored["in0"].astype(np.float64) @ weight.T + bias
            np.testing.assert_allclose(stored["ref0"], exact, rtol=1e-14, atol=1e-14)
            error = {
                precision: np.abs(stored[f"eager-{precision}-0"] - exact).max()
                for precision in ("fp32", "bf16")
            }
        assert 0 < error["fp32"] < 1e-6 < 1e-4 < error["bf16"] < 1e-1
    assert all(value.dtype == torch.float32 for value in linear.module.parameters())


def test_on_cuda_eager_is_told_for_each_precision_whether_it_may_use_tf32(
    linear: Workload, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else cuDNN would, and what fp32 may be off by would be a thousand times too much.

    There is no device: the module stays where it is.
    """
    calls: list[bool] = []
    monkeypatch.setattr(reference, "Recast", lambda module, dtype, device="cpu": Recast(module, dtype))
    monkeypatch.setattr(reference, "cast", lambda inputs, dtype, device: inputs)
    monkeypatch.setattr(reference.tf32, "allow", calls.append)
    reference.refer(linear, 2, ["fp32", "tf32"], "cuda:0", folder, 1)
    assert calls == [False, True] * 2  # of the real inputs and of the random ones
    refer(linear, folder, precisions=("fp32",))
    assert len(calls) == 4


def test_real_inputs_are_the_examples_then_rows_of_the_validation_split_in_order(
    linear: Workload, folder: Path
) -> None:
    refer(linear, folder)
    assert linear.evaluate is not None
    with np.load(folder / "real.npz") as stored:
        rows = stored["in0"].reshape(8, 4)
    np.testing.assert_array_equal(rows[:2], linear.inputs[0].numpy())
    np.testing.assert_array_equal(rows[2:], linear.evaluate.inputs[0].numpy()[:6])


def test_the_validation_split_is_stored_with_the_outputs_and_score_of_fp32_eager(
    linear: Workload, folder: Path
) -> None:
    subject = refer(linear, folder)
    assert linear.evaluate is not None
    with (
        np.load(folder / "validation.npz") as inputs_of_split,
        np.load(folder / "validation-reference.npz") as stored,
    ):
        np.testing.assert_array_equal(inputs_of_split["in0"], linear.evaluate.inputs[0].numpy())
        np.testing.assert_allclose(
            stored["out0"], linear.module(linear.evaluate.inputs[0]).detach().numpy(), rtol=1e-6
        )
        mean = float(stored["out0"].mean())
    assert subject.task == TaskMetric("mean", "higher", pytest.approx(mean), 0.01, 0.01)
    np.savez(folder / "other.npz", out0=np.full((10, 3), 2.0))
    assert reference.score(linear, folder / "other.npz") == {"rows": 10, "mean": 2.0}


def test_what_is_known_of_the_workload(linear: Workload, folder: Path) -> None:
    subject = refer(linear, folder)
    assert (subject.work.items, subject.work.item, subject.weights) == (5, "row", "random, seed 1")
    assert subject.work.flops == 2 * 2 * 4 * 3
    assert subject.work.sensitive is True


def test_timed_inputs_differ_from_each_other_and_carry_their_own_outputs(
    linear: Workload, folder: Path
) -> None:
    refer(linear, folder)
    with np.load(folder / "timed.npz") as timed, np.load(folder / "real.npz") as real:
        assert len({value.tobytes() for value in timed["in0"]}) == len(timed["in0"]) == reference.TIMED
        np.testing.assert_array_equal(timed["ref0"], real["ref0"])


def test_random_inputs_fill_up_where_real_ones_repeat(folder: Path) -> None:
    refer(workload(Does(torch.sin), torch.ones(1, 4) * torch.arange(4)), folder, batch=1)
    with np.load(folder / "timed.npz") as timed, np.load(folder / "random.npz") as drawn:
        assert len(timed["in0"]) == reference.TIMED
        np.testing.assert_array_equal(timed["in0"][1:], drawn["in0"][:3])
        np.testing.assert_allclose(timed["ref0"], np.sin(timed["in0"].astype(np.float64)), rtol=1e-14)


def test_the_same_workload_gives_the_same_reference(linear: Workload, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        refer(linear, tmp_path / name)
    with (
        np.load(tmp_path / "one" / "random.npz") as first,
        np.load(tmp_path / "two" / "random.npz") as second,
    ):
        assert all((first[key] == second[key]).all() for key in first.files)


def test_outputs_that_do_not_depend_on_the_inputs_are_noticed(folder: Path) -> None:
    subject = refer(workload(Does(lambda x: x * 0), torch.randn(2, 4)), folder)
    assert subject.work.sensitive is False


def test_several_inputs_and_outputs_keep_their_order(folder: Path) -> None:
    numbers = torch.randint(0, 7, (2, 3))
    refer(workload(Does(lambda x, n: {"sum": x + n, "product": x * n}), torch.randn(2, 3), numbers), folder)
    with np.load(folder / "random.npz") as stored:
        x, n = stored["in0"].astype(np.float64), stored["in1"]
        assert n.dtype == np.int64
        np.testing.assert_allclose(stored["ref0"], x + n)
        np.testing.assert_allclose(stored["ref1"], x * n)


def test_a_smaller_or_larger_batch_repeats_the_example_rows(folder: Path) -> None:
    refer(workload(Does(torch.sin), torch.arange(6.0).reshape(2, 3)), folder, batch=5)
    with np.load(folder / "real.npz") as stored:
        np.testing.assert_array_equal(stored["in0"][0, :, 0], [0, 3, 0, 3, 0])


def test_a_fixed_batch_is_neither_changed_nor_cut_at_the_end_of_the_split(folder: Path) -> None:
    def fixed(x: torch.Tensor) -> torch.Tensor:
        assert x.shape == (4, 3), x.shape
        return 2 * x

    rows = torch.randn(6, 3)
    subject = workload(
        Does(fixed),
        rows[:4],
        dynamic=False,
        evaluate=Evaluation((rows,), lambda outs: {"mean": 0.0}, "mean", "higher", 0.0),
    )
    with pytest.raises(Refusal, match="invalid_input: w was made for a batch of 4: --batch 4"):
        refer(subject, folder, batch=2)
    refer(subject, folder, batch=4)
    with np.load(folder / "validation-reference.npz") as stored:
        np.testing.assert_array_equal(stored["out0"], 2 * rows.numpy())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x / 0 * 0, "the fp64 reference itself has NaN or infinite outputs"),
        (lambda x: "text", "forward returns str; expected a tensor or a tuple of tensors"),
        (lambda x: (), "forward returns nothing; expected"),
        (lambda x: x.to_sparse(), "forward returns a sparse tensor; return tensor.to_dense"),
        (lambda x: x @ torch.ones(3, 4), "forward fails in fp32 eager: RuntimeError: mat1 and mat2 shapes"),
    ],
)
def test_what_cannot_be_a_reference_is_refused(
    function: Callable[..., Any], message: str, folder: Path
) -> None:
    with pytest.raises(Refusal, match=message) as refused:
        refer(workload(Does(function), torch.randn(2, 4)), folder)
    assert refused.value.reason.code == "invalid_input"


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x @ torch.ones(4, 4),
        lambda x: x.float() @ torch.full((4, 4), 0.1).float(),
        lambda x: (torch.arange(4) / 3) * x.to(torch.float32),
        lambda x: torch.zeros(2, 4, dtype=torch.float32).type_as(x) + x.softmax(-1, dtype=torch.float32),
    ],
    ids=["default dtype", "float()", "integers divided", "dtype="],
)
def test_what_forward_makes_follows_fp64(function: Callable[..., Any], folder: Path) -> None:
    """An LSTM's first states and a table of sines were a reason to refuse."""
    x = torch.randn(2, 4)
    refer(workload(Does(function), x), folder, precisions=("fp32",))
    with np.load(folder / "real.npz") as stored:
        exact, eager = stored["ref0"][0], function(x).numpy()
    assert 0 < np.abs(exact - eager).max() < 1e-6
    assert torch.get_default_dtype() == torch.float32


class Frozen(nn.Module):
    """Has a weight that is no parameter, in fp32 whatever the module is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = [torch.randn(64, 64)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ self.weight[0])


def test_fp32_eager_takes_the_place_of_fp64_where_that_does_not_run(folder: Path) -> None:
    subject = refer(workload(Frozen(), torch.randn(2, 64)), folder, precisions=("fp32",))
    assert any("there is no fp64 reference" in warning for warning in subject.warnings)
    with np.load(folder / "real.npz") as stored:
        true, rounding = stored["ref0"], float(stored["rounding0"])
        np.testing.assert_array_equal(true, stored["eager-fp32-0"])
    assert 1e-8 < rounding < 1e-4
    off = {"right": true * (1 + 1e-7), "wrong": true * (1 + 1e-3)}
    for name, outputs in off.items():
        np.savez(folder / f"{name}.npz", out0=outputs.astype(np.float32))
        distance = check.distances(folder, {"real": folder / f"{name}.npz"}, "fp32", 64)["real"]
        assert distance.within == (name == "right")


def test_a_precision_that_forward_does_not_take_leaves_the_others(folder: Path) -> None:
    """One refused bf16, and fp32 was not measured either."""
    takes = Does(lambda x: x @ torch.ones(4, 4, dtype=x.dtype if x.dtype == torch.double else torch.float))
    referral = reference.refer(workload(takes, torch.randn(2, 4)), 2, ["fp32", "bf16"], "cpu", folder, 1)
    assert referral.refused.keys() == {"bf16"}
    assert referral.refused["bf16"].code == "invalid_input"
    assert "constants in forward must follow the inputs' dtype" in referral.refused["bf16"].detail


class Locked(nn.Module):
    """Cannot be copied, as whatever holds a client or a logger."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.utils.weight_norm(nn.Linear(4, 3))
        self.lock = threading.Lock()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_a_module_that_cannot_be_copied_has_its_own_weights_afterwards(folder: Path) -> None:
    module = Locked()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    refer(workload(module, torch.randn(2, 4)), folder, precisions=("fp32", "bf16", "int8"))
    after = module.state_dict()
    assert all(
        torch.equal(value, after[name]) and value.dtype == torch.float32 for name, value in before.items()
    )


@pytest.mark.parametrize(
    ("module", "shape", "terms"),
    [
        (nn.Linear(64, 8), (2, 64), 64),
        (Does(lambda x: x @ x.mT), (2, 5, 33), 33),
        (nn.Conv2d(6, 4, 3, groups=2), (1, 6, 8, 8), 3 * 3 * 3),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1)), (1, 3, 9, 9), 49),
        (Does(lambda x: x.mean(-1)), (2, 100), 100),
        (Does(lambda x: nn.functional.scaled_dot_product_attention(x, x, x)), (1, 2, 40, 16), 40),
        (Does(lambda x: x * 2 + 1), (2, 100), 1),
    ],
)
def test_the_longest_sum_of_any_element(module: nn.Module, shape: tuple[int, ...], terms: int) -> None:
    assert reference.counted(workload(module, torch.randn(shape))).terms == terms


def test_operators_and_flops_of_one_call_are_counted() -> None:
    assert reference.counted(workload(Does(lambda x: (x * 2 + 1).sin()), torch.randn(2, 100)))[:2] == (0, 3)
    assert (
        reference.counted(workload(nn.Conv2d(3, 8, 3, bias=False), torch.randn(2, 3, 10, 10))).flops
        == 2 * 2 * 8 * 8 * 8 * 27
    )


class Noisy(nn.Module):
    """Draws a random number in each call, as dropout that is left on does."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size, self.layer = size, nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.size * torch.randn(3)


class Counting(nn.Module):
    """Answers otherwise each time without a random number."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + self.calls


@pytest.mark.parametrize(
    "module",
    [Noisy(1.0), Noisy(1e-3), Counting(), Does(lambda x: nn.functional.dropout(x, 0.2, training=True))],
    ids=["noise", "a little noise", "a counter", "dropout"],
)
def test_a_forward_that_answers_otherwise_each_time_is_refused(module: nn.Module, folder: Path) -> None:
    """Eager's own error would be the yardstick: noise as large as the outputs was right."""
    with pytest.raises(Refusal, match="answers the same inputs otherwise each time") as refused:
        refer(workload(module, torch.randn(2, 4)), folder)
    assert refused.value.reason.code == "nondeterministic"
    assert "F.dropout(x, p, self.training)" in refused.value.reason.detail


def test_noise_below_the_floor_is_none(folder: Path) -> None:
    refer(workload(Noisy(1e-9), torch.randn(2, 4)), folder)


def test_randomness_that_only_one_precision_has_is_seen_there(folder: Path) -> None:
    def in_half(x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand(()).to(x.dtype) if x.dtype == torch.bfloat16 else x

    refer(workload(Does(in_half), torch.randn(2, 4)), folder, precisions=("fp32",))
    subject = workload(Does(in_half), torch.randn(2, 4))
    refused = reference.refer(subject, 2, ["fp32", "bf16"], "cpu", folder, 1).refused
    assert refused.keys() == {"bf16"} and refused["bf16"].code == "nondeterministic"
    assert "in bf16 eager, forward answers" in refused["bf16"].detail


def test_time_first_is_taken_as_it_is_and_said(folder: Path) -> None:
    """50 steps were cut to one, since a batch of 1 was asked for."""
    referral = reference.refer(workload(nn.LSTM(4, 3), torch.randn(50, 1, 4)), 1, ["fp32"], "cpu", folder, 1)
    with np.load(folder / "real.npz") as stored:
        assert stored["in0"].shape == (1, 50, 1, 4)
    assert referral.axis == "whole"
    assert "inputs float32 (50, 1, 4): dimension 0 is no batch" in referral.notes[0]


def test_a_batch_of_another_size_is_asked_for_by_its_line(folder: Path) -> None:
    fixed = workload(Does(lambda x: x.view(4, 2, 16).sum(1)), torch.randn(4, 32))
    with pytest.raises(Refusal, match="w was made for a batch of 4: --batch 4"):
        refer(fixed, folder, batch=1)
    assert reference.own_batch(fixed) == 4
    assert reference.own_batch(workload(nn.Linear(4, 3), torch.randn(4, 4))) == 1
    with pytest.raises(Refusal, match="no batch, so a call takes them as they are: --batch 1"):
        refer(workload(nn.LSTM(4, 3), torch.randn(50, 1, 4)), folder, batch=2)


def test_every_output_is_compared_and_complex_ones_as_both_parts(folder: Path) -> None:
    def nested(x: torch.Tensor) -> Any:
        return {"spectrum": torch.fft.rfft(x), "rest": (x.argmax(-1), [x > 0])}

    subject = refer(workload(Does(nested), torch.randn(2, 4)), folder, precisions=("fp32",))
    assert subject.outputs == ("spectrum", "rest.0", "rest.1.0")
    with np.load(folder / "real.npz") as stored:
        assert [stored[f"ref{index}"].dtype.kind for index in range(3)] == ["f", "i", "b"]
        assert stored["ref0"].shape == (2, 2, 3, 2) and np.abs(stored["ref0"][..., 1]).max() > 0.1


def test_inputs_that_are_checked_on_come_without_their_outputs(linear: Workload, folder: Path) -> None:
    refer(linear, folder)
    names = {"random", "real", "timed", "fresh", "validation"}
    assert {file.stem for file in (folder / "inputs").iterdir()} == names
    for name in names:
        with np.load(folder / "inputs" / f"{name}.npz") as alone, np.load(folder / f"{name}.npz") as stored:
            assert alone.files == ["in0"]
            np.testing.assert_array_equal(alone["in0"], stored["in0"])


def test_an_output_that_is_exactly_zero_may_be_off_by_what_its_terms_round_to(folder: Path) -> None:
    """Equal terms cancel in fp64 and in eager, and need not in a kernel that sums otherwise."""

    def cancelled(x: torch.Tensor) -> torch.Tensor:
        weights = (x * 1000).softmax(-1)
        return (weights - weights.sum(-1, keepdim=True) * weights)[:, :0].sum(-1) + (x.sin() - x.sin())[:, 0]

    refer(workload(Does(cancelled), torch.randn(2, 4)), folder, precisions=("fp32",))
    with np.load(folder / "real.npz") as stored:
        assert not stored["ref0"].any() and 1e-9 < stored["rounding0"] < 1e-6


def test_a_forward_that_changes_its_inputs_is_refused(folder: Path) -> None:
    """Else the changed ones would be what everybody is asked: a backend without the change was
    right.
    """
    with pytest.raises(Refusal, match="forward changes its input 0 in place") as refused:
        refer(workload(Does(lambda x: x.clamp_(min=0) * 2), torch.randn(2, 4)), folder)
    assert refused.value.reason.code == "nondeterministic"


def test_rounding_leaves_what_every_library_rounds_alike(folder: Path) -> None:
    """1 - mask is exact; times the least number there is, a moved 1 would allow anything."""

    def masked(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (x.sin() + (1.0 - mask.to(x.dtype)) * -1e9).softmax(-1)

    mask = torch.ones(2, 4, dtype=torch.int64)
    mask[1, 2:] = 0
    refer(workload(Does(masked), torch.randn(2, 4), mask), folder, precisions=("fp32",))
    with np.load(folder / "real.npz") as stored:
        assert 1e-9 < stored["rounding0"] < 1e-6
