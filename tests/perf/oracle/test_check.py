"""The oracle: what is as right as eager passes, and each way to be wrong is refused with its own
words.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import ml_dtypes
import msgspec
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotlap.perf.oracle import check, rounding
from hotlap.perf.terms.reasons import Refusal
from hotlap.perf.terms.result import Better, Deviation, Distance, Task
from hotlap.perf.terms.work import TaskMetric

DTYPES = {"fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16, "tf32": np.float16}
METRIC = TaskMetric("accuracy", "higher", reference=0.75, budget=0.125, int8_budget=0.25)


def rounded(values: np.ndarray, precision: str) -> np.ndarray:
    return values.astype(DTYPES[precision]).astype(np.float32)


@pytest.fixture
def exact() -> np.ndarray:
    """fp64 outputs of 2 batches of 64 rows, 16 classes: 2,048 elements."""
    return np.random.default_rng(0).standard_normal((2, 64, 16))


def verdict(result: Distance) -> str:
    """What the case is refused with."""
    with pytest.raises(Refusal) as refused:
        check.judge(Deviation({"real": result}), "fp32", False)
    assert refused.value.reason.code == "accuracy"
    return refused.value.reason.detail


@given(st.sampled_from(sorted(DTYPES)), st.floats(2.0**-14, 60_000))
@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_half_ulp_is_half_the_spacing_of_the_format(precision: str, rms: float) -> None:
    """TF32 has the fraction bits of fp16, so the same spacing where fp16 is normal."""
    towards_zero = math.ldexp(math.floor(math.ldexp(math.frexp(rms)[0], 8)), math.frexp(rms)[1] - 8)
    assert check.half_ulp(precision, rms) == float(np.spacing(DTYPES[precision](towards_zero))) / 2


def test_half_ulp_is_nowhere_finer_than_between_subnormal_numbers() -> None:
    assert check.half_ulp("fp16", 0.0) == check.half_ulp("fp16", 1e-6) == 2.0**-25
    assert 0 < check.half_ulp("fp32", 0.0) < 1e-44


def test_integers_and_booleans_are_right_or_wrong() -> None:
    """A class is no nearer to its neighbour than to any other, and there is no floor."""
    exact = np.arange(2048).reshape(2, 64, 16)
    result = check.distance(exact.copy(), exact, exact, "fp32", 1000)
    assert result.within and result.rmse == result.tolerance == 0
    one_off = exact.copy()
    one_off[1, 2, 3] += 1
    result = check.distance(one_off, exact, exact, "fp32", 1000)
    assert not result.within and result.top1_flips == 1
    assert check.distance(one_off, exact, one_off, "bf16", 1).within
    flags = exact > 5
    assert not check.distance(~flags, flags, flags, "fp32", 1).within


def test_what_rounding_costs_a_zero_is_allowed_and_no_more() -> None:
    zero = np.zeros((2, 64, 16))
    assert not check.distance(zero + 6e-8, zero, zero, "fp32", 1).within
    assert check.distance(zero + 6e-8, zero, zero, "fp32", 1, rounding=7e-8).within
    assert not check.distance(zero + 6e-8, zero, zero, "fp32", 1, rounding=5e-8).within


def test_an_output_of_another_shape_is_refused_by_its_name(tmp_path: Path) -> None:
    exact = np.ones((2, 4, 3))
    stored(tmp_path, "real.npz", **{"in0": exact, "ref0": exact, "eager-fp32-0": exact})
    outputs = {"real": stored(tmp_path, "outputs.npz", out0=exact[:, :, :2])}
    with pytest.raises(Refusal, match=r"logits on real inputs has shape \(4, 2\) where eager gives \(4, 3\)"):
        check.distances(tmp_path, outputs, "fp32", 1, ["logits"])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_outputs_equal_to_eager_pass_in_every_precision(exact: np.ndarray, precision: str) -> None:
    eager = rounded(exact, precision)
    result = check.distance(eager, exact, eager, precision, 1)
    assert result.within
    assert result.rmse == result.eager_rmse == pytest.approx(float(np.sqrt(np.mean((eager - exact) ** 2))))
    assert result.cosine == pytest.approx(1, abs=1e-4)
    check.judge(Deviation({"real": result}), "fp32", False)


def test_the_reference_itself_is_at_distance_zero(exact: np.ndarray) -> None:
    result = check.distance(exact, exact, rounded(exact, "fp32"), "fp32", 1)
    assert (result.rmse, result.top1_flips, result.elements, result.within) == (0, 0, 2048, True)
    assert result.cosine == pytest.approx(1)


def test_the_tolerance_is_k_times_eager_plus_the_floor(exact: np.ndarray) -> None:
    eager = exact + 1e-3
    result = check.distance(eager, exact, eager, "fp32", 100)
    rms = np.float32(np.sqrt(np.mean(exact**2)))
    assert result.floor == pytest.approx(float(np.spacing(rms)) / 2 * (1 + 10))
    assert result.tolerance == pytest.approx(2 * 1e-3 + result.floor)


@pytest.mark.parametrize(
    ("precision", "elements", "k"),
    [("fp32", 1000, 2), ("fp32", 999, 3), ("bf16", 2000, 3), ("fp16", 2000, 3), ("tf32", 2000, 3)],
)
def test_k_is_larger_for_half_precision_and_few_elements(
    exact: np.ndarray, precision: str, elements: int, k: float
) -> None:
    part = exact.ravel()[:elements]
    assert check.distance(part, part, part, precision, 1).k == k


def test_outputs_of_lower_precision_fail_under_the_name_of_the_higher(exact: np.ndarray) -> None:
    result = check.distance(rounded(exact, "bf16"), exact, rounded(exact, "fp32"), "fp32", 64)
    assert not result.within
    assert (
        f"on real inputs are off by {result.rmse:.3g} RMSE; at most {result.tolerance:.3g} is allowed (2 x"
        " eager's" in verdict(result)
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_constant_offset_fails(exact: np.ndarray, precision: str) -> None:
    eager = rounded(exact, precision)
    offset = 4 * check.distance(eager, exact, eager, precision, 1).tolerance
    result = check.distance(exact + offset, exact, eager, precision, 1)
    assert result.rmse == pytest.approx(offset)
    assert verdict(result).startswith("outputs on real inputs are off by")


def test_one_nan_fails_and_is_called_so(exact: np.ndarray) -> None:
    outputs = exact.copy()
    outputs[0, 0, 0] = np.nan
    result = check.distance(outputs, exact, exact, "fp32", 1)
    assert not result.within
    assert verdict(result) == "NaN outputs on real inputs where fp64 eager is finite"


def test_infinite_outputs_fail(exact: np.ndarray) -> None:
    outputs = exact.copy()
    outputs[0, 0, 0] = np.inf
    assert not check.distance(outputs, exact, exact, "fp32", 1).within


@pytest.mark.parametrize("shape", [(2, 64, 8), (2, 1024), (2, 64, 16, 1)])
def test_another_shape_fails(exact: np.ndarray, shape: tuple[int, ...]) -> None:
    outputs = exact.ravel()[: math.prod(shape)].reshape(shape)
    result = check.distance(outputs, exact, exact, "fp32", 1)
    assert (result.rmse, result.cosine, result.top1_flips) == (math.inf, 0.0, 2048)
    assert verdict(result).startswith("outputs on real inputs are off by inf RMSE")


def test_eager_that_overflows_is_no_excuse_for_wrong_outputs(exact: np.ndarray) -> None:
    eager = exact.copy()
    eager[0, 0, 0] = np.inf
    assert not check.distance(exact + 100, exact, eager, "fp16", 1).within


def test_flips_and_cosine_by_hand() -> None:
    reference = np.array([[[3.0, 4.0], [4.0, 3.0]]])
    result = check.distance(np.array([[[4.0, 3.0], [4.0, 3.0]]]), reference, reference, "fp32", 1)
    assert result.top1_flips == 1
    assert result.cosine == pytest.approx((24 + 25) / 50)
    assert result.rmse == pytest.approx(math.sqrt(2 / 4))


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 1)])
def test_outputs_without_classes_have_no_flips(shape: tuple[int, ...]) -> None:
    reference = np.arange(8.0).reshape(shape)
    assert check.distance(-reference, reference, reference, "fp32", 1).top1_flips == 0


def test_zeros_where_zeros_are_right_pass() -> None:
    nothing = np.zeros((2, 8))
    result = check.distance(nothing, nothing, nothing, "fp32", 1)
    assert (result.within, result.cosine, result.tolerance) == (True, 1.0, 2.0**-149)
    assert not check.distance(nothing + 1e-30, nothing, nothing, "fp32", 1).within


def test_a_distance_at_its_tolerance_passes_and_one_beyond_does_not() -> None:
    def result(rmse: float) -> Distance:
        return Distance(rmse, 0.25, 0.5, 2.0, 0.0, 1.0, 0, 10)

    assert result(0.5).within
    assert not result(math.nextafter(0.5, 1)).within


@pytest.mark.parametrize(
    ("better", "value", "fine"),
    [
        ("higher", 0.625, True),
        ("higher", math.nextafter(0.625, 0), False),
        ("higher", 0.99, True),
        ("lower", 0.875, True),
        ("lower", math.nextafter(0.875, 1), False),
        ("lower", 0.01, True),
        ("higher", math.nan, False),
        ("lower", math.nan, False),
    ],
)
def test_the_task_metric_may_get_worse_by_its_budget_and_no_more(
    better: Better, value: float, fine: bool
) -> None:
    result = check.task(
        msgspec.structs.replace(METRIC, better=better), {"accuracy": value, "loss": 1.0}, "fp32"
    )
    assert result.within == fine
    assert result.all["loss"] == 1.0
    if fine:
        check.judge(Deviation({}, result), "fp32", False)
    else:
        with pytest.raises(
            Refusal,
            match=(
                rf"accuracy: accuracy on .* is {value:.4f}.* eager reaches 0.7500 .*worse by at most 0.125$"
            ),
        ):
            check.judge(Deviation({}, result), "fp32", False)


def test_every_kind_of_inputs_is_judged() -> None:
    good, bad = Distance(0.0, 0.0, 1.0, 2.0, 1.0, 1.0, 0, 10), Distance(2.0, 0.0, 1.0, 2.0, 1.0, 0.5, 0, 10)
    check.judge(
        Deviation({"random": good, "real": good}, Task("accuracy", "higher", 1.0, 1.0, 0.0)), "fp32", False
    )
    with pytest.raises(Refusal, match="on real inputs are off by 2 RMSE; at most 1 is allowed"):
        check.judge(Deviation({"random": good, "real": bad}), "fp32", False)


def stored(folder: Path, name: str, **arrays: np.ndarray) -> Path:
    np.savez(folder / name, **arrays)
    return folder / name


def test_of_several_outputs_the_worst_for_its_tolerance_counts_and_nan_above_all(
    tmp_path: Path, exact: np.ndarray
) -> None:
    eager = exact + 1e-3
    oracle = {
        "in0": exact,
        "ref0": exact,
        "ref1": 1000 * exact,
        "eager-fp32-0": eager,
        "eager-fp32-1": 1000 * eager,
    }
    stored(tmp_path, "real.npz", **oracle, **{"eager-bf16-0": exact + 9, "eager-bf16-1": exact})
    outputs = stored(tmp_path, "outputs.npz", out0=exact + 1.5e-3, out1=1000 * exact + 0.5)
    result = check.distances(tmp_path, {"real": outputs}, "fp32", 1)
    assert list(result) == ["real"]
    assert result["real"].rmse == pytest.approx(1.5e-3)
    assert result["real"].eager_rmse == pytest.approx(1e-3)
    outputs = stored(tmp_path, "outputs.npz", out0=exact, out1=np.full_like(exact, np.nan))
    assert math.isnan(check.distances(tmp_path, {"real": outputs}, "fp32", 1)["real"].rmse)


def test_another_number_of_outputs_is_refused(tmp_path: Path, exact: np.ndarray) -> None:
    stored(tmp_path, "real.npz", **{"in0": exact, "ref0": exact, "eager-fp32-0": exact})
    outputs = stored(tmp_path, "outputs.npz", out0=exact, out1=exact)
    with pytest.raises(Refusal, match="2 outputs on real inputs where eager gives 1"):
        check.distances(tmp_path, {"real": outputs}, "fp32", 1)


def test_timed_outputs_may_be_twice_as_far_as_the_check_saw_or_at_the_tolerance(tmp_path: Path) -> None:
    reference = np.zeros((2, 3, 4))
    stored(tmp_path, "timed.npz", in0=reference, ref0=reference)
    outputs = stored(tmp_path, "outputs.npz", out0=reference + np.array([0.1, 5.0]).reshape(2, 1, 1))
    seen = {
        "real": Distance(0.0, 0.0, 1.0, 2.0, 1.0, 1.0, 0, 10),
        "random": Distance(0.0, 0.0, 0.5, 2.0, 0.5, 1.0, 0, 10),
    }
    assert check.timed_limits(tmp_path, {"timed": outputs}, seen) == pytest.approx([1.0, 10.0])


def test_where_nothing_was_judged_unseen_inputs_may_be_as_far_as_random_ones_were(tmp_path: Path) -> None:
    reference = np.zeros((2, 3, 4))
    for name in ("timed", "random"):
        stored(tmp_path, f"{name}.npz", in0=reference, ref0=reference)
    off = np.array([0.1, 3.0]).reshape(2, 1, 1)
    outputs = {
        "timed": stored(tmp_path, "timed-outputs.npz", out0=reference),
        "random": stored(tmp_path, "random-outputs.npz", out0=reference + off),
    }
    seen = {"random": Distance(2.1, 0.1, 0.5, 3.0, 0.0, 0.9, 0, 24)}
    assert check.timed_limits(tmp_path, outputs, seen, judged=False) == pytest.approx([6.0, 6.0])
    assert check.timed_limits(tmp_path, outputs, seen) == pytest.approx([0.5, 0.5])
    stored(tmp_path, "random-outputs.npz", out0=reference + np.array([np.inf, 1.0]).reshape(2, 1, 1))
    assert check.timed_limits(tmp_path, outputs, seen, judged=False) == pytest.approx([2.0, 2.0])


@pytest.mark.parametrize(
    ("precision", "has_task", "passes"), [("int8", True, True), ("int8", False, False), ("bf16", True, False)]
)
def test_only_of_int8_with_a_task_metric_the_distance_does_not_matter(precision, has_task, passes):
    far = Distance(1.0, 0.1, 0.3, 3.0, 0.0, 0.9, 0, 10)
    with contextlib.nullcontext() if passes else pytest.raises(Refusal, match="accuracy"):
        check.judge(Deviation({"real": far}), precision, has_task)


@pytest.mark.parametrize(
    ("change", "terms", "judged"),
    [
        ({"eager-fp32-0": 0.5}, 1, 0.0),
        ({}, 10**18, 0.0),
        ({"rounding0": 1e9}, 1, 0.0),
        ({"eager-fp32-0": np.nan}, 1, 0.0),
        ({}, 1, 5.0),
    ],
    ids=["eager that is no eager", "endless sums", "rounding of a billion", "no number", "judged before"],
)
def test_files_from_elsewhere_cannot_widen_their_own_tolerance(
    tmp_path: Path, exact: np.ndarray, change: dict[str, float], terms: int, judged: float
) -> None:
    honest = {"in0": exact, "ref0": exact, "eager-fp32-0": rounded(exact, "fp32")}
    check.bounded(stored(tmp_path, "honest.npz", **honest), "fp32", 64)
    changed = {name: exact + value if name in honest else np.array(value) for name, value in change.items()}
    with pytest.raises(Refusal, match="by its own files, output 0 may be off by"):
        check.bounded(stored(tmp_path, "changed.npz", **{**honest, **changed}), "fp32", terms, judged)


def two_scales(exact: np.ndarray) -> np.ndarray:
    """Outputs with a score of a billion in each row."""
    return np.concatenate([exact, np.full((*exact.shape[:-1], 1), 1e9)], -1)


def test_a_few_huge_elements_hide_no_others(tmp_path: Path, exact: np.ndarray) -> None:
    reference = two_scales(exact)
    stored(tmp_path, "real.npz", **{"in0": reference, "ref0": reference, "eager-fp32-0": reference})
    for scale, right in ((1.0, True), (1 + 1e-5, False), (0.0, False)):
        outputs = stored(tmp_path, "outputs.npz", out0=two_scales(exact * scale))
        assert check.distances(tmp_path, {"real": outputs}, "fp32", 1)["real"].within == right


def test_small_elements_may_be_off_by_what_rounding_costs_them_and_no_more(
    tmp_path: Path, exact: np.ndarray
) -> None:
    reference = two_scales(exact)
    size = float(np.sqrt(np.mean(exact**2)))
    outputs = stored(tmp_path, "outputs.npz", out0=two_scales(exact * (1 + 1e-4)))
    wrong = stored(tmp_path, "wrong.npz", out0=two_scales(exact * 1.1))
    for cost, right in ((2e-4 * size, True), (2e-5 * size, False), (1e9, True)):
        content = {"in0": reference, "ref0": reference, "eager-fp32-0": reference}
        stored(tmp_path, "real.npz", **content, **{"minor-rounding0": np.array(cost)})
        assert check.distances(tmp_path, {"real": outputs}, "fp32", 1)["real"].within == right
        assert not check.distances(tmp_path, {"real": wrong}, "fp32", 1)["real"].within


def test_rounding_of_a_softmax_is_seen_in_its_smallest_elements() -> None:
    logits = torch.linspace(-40, 40, 1000)[None]
    exact = torch.softmax(logits, 1)

    def moved(seed: int) -> tuple[torch.Tensor, ...]:
        noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed))
        return (torch.softmax(logits * (1 + 1e-6 * noise), 1),)

    (cost,) = rounding.cost(moved, (exact,))
    small = torch.from_numpy(check.minor(exact.numpy()))
    size = float(exact[small].square().mean().sqrt())
    assert 1e-6 < cost.minor / size < 1e-4 and cost.minor < 1e-3 * cost.whole


def test_of_one_scale_every_element_is_judged_together(exact: np.ndarray) -> None:
    assert not check.minor(exact).any()
    assert not check.minor(np.zeros((2, 3))).any() and not check.minor(np.zeros((0, 3))).any()
    assert not check.minor(np.array([[0, 1, 10**9]])).any(), "integers are right or wrong"


@pytest.mark.parametrize(
    ("reference", "eager"),
    [(np.ones((2, 2, 8)), np.zeros((2, 2, 8))), (np.arange(32).reshape(2, 2, 8), np.zeros((2, 2, 8), int))],
    ids=["cancellation", "integers"],
)
def test_what_eager_gets_wrong_itself_cannot_be_checked_by_it(
    tmp_path: Path, reference: np.ndarray, eager: np.ndarray
) -> None:
    stored(tmp_path, "real.npz", **{"in0": reference, "ref0": reference, "eager-fp32-0": eager})
    outputs = stored(tmp_path, "outputs.npz", out0=eager)
    with pytest.raises(Refusal, match="output 0 cannot be checked on real inputs: eager itself is off by"):
        check.distances(tmp_path, {"real": outputs}, "fp32", 1)


def test_what_rounding_alone_moves_far_is_not_laid_at_eagers_door(tmp_path: Path, exact: np.ndarray) -> None:
    rounding = {"rounding0": np.array(9.0)}
    stored(tmp_path, "real.npz", **{"in0": exact, "ref0": exact, "eager-fp32-0": exact}, **rounding)
    outputs = stored(tmp_path, "outputs.npz", out0=exact)
    with pytest.raises(Refusal, match=r"inputs: rounding in fp32 was seen to move it by 9 RMSE"):
        check.distances(tmp_path, {"real": outputs}, "fp32", 1)


def test_an_output_without_elements_is_right_and_hides_no_other(tmp_path: Path, exact: np.ndarray) -> None:
    empty = np.zeros((2, 3, 0))
    files = {"in0": exact, "ref0": empty, "ref1": exact, "eager-fp32-0": empty, "eager-fp32-1": exact}
    stored(tmp_path, "real.npz", **files)
    for scale, right in ((1.0, True), (0.0, False)):
        outputs = stored(tmp_path, "outputs.npz", out0=empty, out1=exact * scale)
        assert check.distances(tmp_path, {"real": outputs}, "fp32", 1)["real"].within == right


def test_integers_of_files_from_elsewhere_are_most_of_them_right(tmp_path: Path) -> None:
    exact = np.arange(2048).reshape(2, 64, 16)
    for share, allowed in ((0.05, True), (0.2, False)):
        eager = exact + (exact < share * exact.size)
        file = stored(tmp_path, "reference.npz", **{"in0": exact, "ref0": exact, "eager-bf16-0": eager})
        if allowed:
            check.bounded(file, "bf16", 1)
        else:
            with pytest.raises(Refusal, match="by its own files, output 0 may be off by"):
                check.bounded(file, "bf16", 1)
