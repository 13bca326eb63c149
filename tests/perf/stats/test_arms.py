"""Arms against a control: how often what is said of them is wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from scipy import stats

from hotlap.perf.stats.arms import contrasts
from hotlap.perf.stats.power import detectable

# So many experiments are simulated: a rate of 5 % is then known to 0.5 % (standard error).
TIMES = 2000
# What is too small to be said to be absent.
TINY = 1e-9


def drawn(seeds: int, correlation: float, effect: float = 0.0) -> Iterator[tuple[list[float], list[float]]]:
    """Yields control and arm of each experiment, of normal values with deviation 1."""
    values = np.random.default_rng(2000 + seeds).standard_normal((TIMES, 2, seeds))
    arm = correlation * values[:, 0] + math.sqrt(1 - correlation**2) * values[:, 1] + effect
    yield from zip(values[:, 0].tolist(), arm.tolist(), strict=True)


@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.6])
@pytest.mark.parametrize("seeds", [3, 8])
def test_the_same_arm_twice_is_called_different_as_often_as_stated(seeds: int, correlation: float) -> None:
    called = sum(
        contrasts(control, {"arm": arm}, TINY, "lower")["arm"].answer in ("better", "worse")
        for control, arm in drawn(seeds, correlation)
    )
    assert 0.035 <= called / TIMES <= 0.065


def test_welch_where_pairs_are_not_correlated_would_call_twice_as_many() -> None:
    """The defect that the guard above is for."""
    called = 0
    for control, arm in drawn(8, -0.5):
        contrast = contrasts(control, {"arm": arm}, TINY, "lower")["arm"]
        assert contrast.correlation is not None
        called += (contrast.p if contrast.correlation > 0 else contrast.p_unpaired) <= 0.05
    assert called / TIMES > 0.08


def test_of_three_arms_that_are_the_control_any_is_called_different_as_often_as_stated() -> None:
    random = np.random.default_rng(3)
    called, times = 0, TIMES // 2
    for _ in range(times):
        control, *arms = random.standard_normal((4, 6)).tolist()
        answers = contrasts(control, {str(index): arm for index, arm in enumerate(arms)}, TINY, "lower")
        called += any(each.answer in ("better", "worse") for each in answers.values())
    assert called / times <= 0.07


@pytest.mark.parametrize("seeds", [5, 10])
def test_a_planned_effect_is_found_as_often_as_planned(seeds: int) -> None:
    """Each experiment has its own pilot of five, which says the effect that is then planted."""
    better = 0
    for (pilot, again), (control, arm) in zip(drawn(5, 0.3), drawn(seeds, 0.3), strict=True):
        spread = float(np.std(np.subtract(again, pilot), ddof=1))
        effect = detectable(spread, len(pilot), seeds, 0.05)
        planted = [value + effect for value in arm]
        better += contrasts(control, {"arm": planted}, TINY, "higher")["arm"].answer == "better"
    assert better / TIMES >= 0.8


@pytest.mark.parametrize("true", [1.0, 1.3])
def test_a_difference_of_the_smallest_effect_is_rarely_called_none(true: float) -> None:
    called = sum(
        contrasts(control, {"arm": arm}, 1.0, "lower")["arm"].answer == "no difference"
        for control, arm in drawn(8, 0.9, effect=true)
    )
    assert called / TIMES <= 0.065


def test_power_is_what_scipy_says_where_the_spread_is_known() -> None:
    effect = detectable(2.0, 100_000, 12, 0.05, power=0.8)
    shift, critical = effect / 2.0 * math.sqrt(12), stats.t.ppf(0.975, 11)
    assert stats.nct.sf(critical, 11, shift) == pytest.approx(0.8, abs=1e-3)
    # A pilot of five knows less, so the effect must be larger; one pair finds nothing.
    assert detectable(2.0, 5, 12, 0.05, power=0.8) > 1.1 * effect
    assert detectable(2.0, 5, 1, 0.05) == math.inf
    # Two pairs at a level of one in a million find nothing that anybody asks for.
    assert detectable(2.0, 2, 2, 1e-6) == math.inf


def test_the_numbers_are_scipys() -> None:
    control, arm = [1.0, 2.0, 4.0, 3.0, 5.0], [1.5, 2.2, 4.9, 3.1, 5.6]
    contrast = contrasts(control, {"arm": arm}, TINY, "lower")["arm"]
    known = stats.ttest_rel(arm, control)
    interval = known.confidence_interval(0.95)
    assert contrast.p == pytest.approx(known.pvalue)
    assert (contrast.low, contrast.high) == pytest.approx((interval.low, interval.high))
    assert contrast.p_unpaired == pytest.approx(stats.ttest_ind(arm, control, equal_var=False).pvalue)
    assert contrast.correlation == pytest.approx(stats.pearsonr(control, arm).statistic)
    assert contrast.p_signs == 2 / 2**5


def test_direction_and_size() -> None:
    control = [1.0, 1.1, 1.2, 0.9]
    arm = [value + 0.5 + shift for value, shift in zip(control, (0.01, 0.0, -0.01, 0.02), strict=True)]
    assert contrasts(control, {"arm": arm}, 0.1, "lower")["arm"].answer == "worse"
    assert contrasts(control, {"arm": arm}, 0.1, "higher")["arm"].answer == "better"
    small = contrasts(control, {"arm": arm}, 0.9, "higher")["arm"]
    assert small.answer == "no difference"
    assert small.reason == "there is a difference, smaller than the effect of interest"


def test_an_answer_is_what_its_interval_says() -> None:
    """A 95 % interval may stick out where two tests at 5 % say that there is no difference."""
    answers = set()
    for control, arm in drawn(8, 0.6):
        for better in ("lower", "higher"):
            contrast = contrasts(control, {"arm": arm, "other": arm[::-1]}, 0.9, better)["arm"]
            inside = contrast.low > -0.9 and contrast.high < 0.9
            without_0 = not contrast.low <= 0 <= contrast.high
            answers.add((contrast.answer, inside if contrast.answer == "no difference" else without_0))
    assert answers == {("no difference", True), ("better", True), ("worse", True), ("could not tell", False)}


def test_pairs_that_all_differ_by_the_same_are_no_certainty() -> None:
    """Accuracies on a few rows agree by chance: two pairs of them prove nothing."""
    few = contrasts([0.95, 0.96], {"arm": [0.96, 0.97]}, 0.001, "higher")["arm"]
    assert few.answer == "could not tell" and few.p == 0.5
    assert few.reason == "all pairs differ by the same"
    same = contrasts([1.0, 2.0], {"arm": [1.0, 2.0]}, 0.1, "lower")["arm"]
    assert (same.answer, same.difference, same.p) == ("could not tell", 0.0, 1.0)
    many = [0.90 + 0.01 * index for index in range(6)]
    moved = [value + 0.05 for value in many]
    assert contrasts(many, {"arm": moved}, 0.001, "higher")["arm"].answer == "better"
    assert contrasts(many, {"arm": many}, 0.001, "higher")["arm"].answer == "no difference"
    constant = contrasts([1.0, 1.0], {"arm": [1.0, 1.0]}, 0.1, "lower")["arm"]
    assert constant.correlation is None and constant.p_unpaired == 1.0


def test_what_failed_is_never_left_out_of_the_answer() -> None:
    control, better = [1.0, 1.1, 1.2, 1.3], [0.5, 0.61, 0.7, None]
    failed = contrasts(control, {"arm": better}, 0.1, "lower")["arm"]
    assert failed.answer == "could not tell"
    assert failed.reason == "1 of its trainings failed; of the others alone: better"
    # It is worse even so: failing makes it no better.
    worse = contrasts(control, {"arm": better}, 0.1, "higher")["arm"]
    assert (worse.answer, worse.reason) == ("worse", "1 of its trainings failed")
    # The control's failures excuse nothing either.
    missing = contrasts([1.0, 1.1, 1.2, None], {"arm": [0.5, 0.61, 0.7, 0.8]}, 0.1, "higher")["arm"]
    assert missing.reason == "1 of the control's trainings failed; of the others alone: worse"
    assert missing.answer == "could not tell"
    # Means are of the pairs, as the difference is: the control's fourth has none.
    paired = contrasts([1.0, 1.1, 1.2, 50.0], {"arm": better}, 0.1, "lower")["arm"]
    assert paired.control == pytest.approx(1.1)


@pytest.mark.parametrize("values", [[None, None], [1.0, None]])
def test_fewer_than_two_pairs_tell_nothing(values: list[float | None]) -> None:
    contrast = contrasts([1.0, 2.0], {"arm": values}, 0.1, "lower")["arm"]
    assert contrast.answer == "could not tell" and contrast.low == -math.inf and contrast.p == 1.0
