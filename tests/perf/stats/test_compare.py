"""The tests of the gate: against hand-worked figures, against simulation with known truth, and with
a planted mistake.
"""

from __future__ import annotations

import math
from statistics import fmean, stdev

import numpy as np
import pytest
from scipy import stats as scipy_stats

from hotlap.perf.stats import compare


@pytest.mark.parametrize(
    ("alpha", "looks", "expected"),
    [(0.05, (6, 9, 12, 16), 0.0198), (0.025, (9, 12, 16), 0.0122), (0.05 / 12, (12, 16), 0.0025)],
)
def test_the_level_of_a_look_keeps_the_sequence_at_alpha(
    alpha: float, looks: tuple[int, ...], expected: float
) -> None:
    """0.0198 for looks at 6, 9, 12 and 16 blocks; the others follow once the looks that
    cannot reach their level are left out.
    """
    each, possible = compare.level(alpha)
    assert possible == looks
    assert each == pytest.approx(expected, rel=0.05)


def test_the_interval_holds_at_any_look() -> None:
    assert compare.interval_tail() == pytest.approx(0.0090, rel=0.03)


def test_a_dozen_cases_decide_nothing_before_twelve_blocks() -> None:
    assert min(compare.level(0.05 / 12)[1]) == 12


def test_so_many_cases_that_the_looks_share_alpha() -> None:
    each, possible = compare.level(1e-4)
    assert possible == (16,) and each == pytest.approx(1e-4)


def test_sign_flip_by_hand() -> None:
    """Of the 8 patterns of 1, 2, 3 the sums 6 and 4 are at least 4."""
    assert compare.sign_flip([1, 2, 3]) == 1 / 8
    assert compare.sign_flip([-1, 2, 3]) == 2 / 8
    assert compare.sign_flip([0.0, 0.0]) == 1.0
    assert compare.sign_flip([0.1, 0.2, -0.3]) == pytest.approx(5 / 8)
    with pytest.raises(ValueError, match="at most 24"):
        compare.sign_flip([1.0] * 25)


def test_p_is_the_larger_of_the_two_tests() -> None:
    values = [0.05, 0.06, 0.04, 0.055, 0.045, 0.05]
    assert compare.p_above(values, 0.03) == 2**-6
    spread = [0.3, -0.2, 0.4, -0.1, 0.2, 0.1, 0.15]
    moved = scipy_stats.ttest_1samp(spread, 0, alternative="greater").pvalue
    assert compare.p_above(spread, 0.0) == pytest.approx(max(moved, compare.sign_flip(spread)))


def test_three_verdicts() -> None:
    each = compare.level(0.05)[0]

    def verdict(centre: float, spread: float) -> str:
        values = [centre + spread * offset for offset in (-1, 1, -0.5, 0.5, 0.25, -0.25)]
        return compare.lockstep(values, 0.03, each, each).verdict

    assert verdict(0.06, 0.01) == "regression"
    assert verdict(0.0, 0.01) == "pass"
    assert verdict(-0.2, 0.01) == "pass"
    assert verdict(0.03, 0.01) == "inconclusive"
    assert verdict(0.06, 0.5) == "inconclusive"


def test_least_tolerance_and_detectable_effect_by_the_formula() -> None:
    """(t(1 - a, n - 1) + t(0.9, n - 1)) * s / sqrt(n), which is 1.3 % for 16 blocks of sd 1.4 %."""
    values = [0.014 * value for value in scipy_stats.norm.ppf((np.arange(16) + 0.5) / 16)]
    scale = 0.014 / stdev(values)
    each = compare.level(0.05)[0]
    judgement = compare.lockstep([scale * value for value in values], 0.03, each, each)
    quantiles = scipy_stats.t.ppf(1 - each, 15) + scipy_stats.t.ppf(0.9, 15)
    assert judgement.least_tolerance == pytest.approx(math.expm1(quantiles * 0.014 / 4))
    assert judgement.least_tolerance == pytest.approx(0.013, abs=0.0006)
    assert math.log1p(judgement.detectable) == pytest.approx(
        math.log1p(0.03) + math.log1p(judgement.least_tolerance)
    )


def test_two_samples_by_welch() -> None:
    base, head = [0.0, 0.1, 0.05, 0.02], [0.3, 0.35, 0.28, 0.4, 0.31]
    judgement = compare.apart(base, head, 0.05, 0.05, 0.05)
    expected = scipy_stats.ttest_ind(
        np.array(head) - math.log1p(0.05), base, equal_var=False, alternative="greater"
    )
    assert judgement.p_worse == pytest.approx(expected.pvalue)
    assert judgement.p_fine == pytest.approx(1 - expected.pvalue)
    assert judgement.ratio == pytest.approx(math.exp(fmean(head) - fmean(base)))
    both = scipy_stats.ttest_ind(head, base, equal_var=False).confidence_interval(0.95)
    assert (math.log(judgement.low), math.log(judgement.high)) == pytest.approx((both.low, both.high))
    assert judgement.verdict == "regression"


def test_what_jobs_differ_by_widens_the_interval() -> None:
    base, head = [0.0, 0.01, -0.01, 0.0], [0.2, 0.21, 0.19, 0.2]
    assert compare.apart(base, head, 0.03, 0.05, 0.05).verdict == "regression"
    wide = compare.apart(base, head, 0.03, 0.05, 0.05, job_sd=0.1)
    assert wide.verdict == "inconclusive"
    assert math.log(wide.high) - math.log(wide.ratio) == pytest.approx(1.96 * math.sqrt(0.02), rel=0.02)


def test_holm_by_hand() -> None:
    levels = [0.05, 0.025, 0.05 / 3]
    p = [0.02, 0.001, 0.2]
    each = compare.holm(p, levels)
    assert [value <= level for value, level in zip(p, each, strict=True)] == [True, True, False]
    p = [0.03, 0.03, 0.001]
    assert [value <= level for value, level in zip(p, compare.holm(p, levels), strict=True)] == [
        False,
        False,
        True,
    ]
    p = [0.02, 0.02, 0.02]
    assert not any(value <= level for value, level in zip(p, compare.holm(p, levels), strict=True))
    assert compare.holm([], []) == []


def sequence(values: np.ndarray, each: float, looks: tuple[int, ...]) -> str:
    for n in looks:
        verdict = compare.lockstep(list(values[:n]), 0.03, each, each).verdict
        if verdict != "inconclusive":
            return verdict
    return "inconclusive"


@pytest.mark.parametrize("heavy", [False, True])
def test_at_the_margin_a_sequence_alarms_no_more_often_than_it_says(heavy: bool) -> None:
    """800 races whose true change is the tolerance itself; 5 % plus three standard errors is 7.3 %.
    bench/gate_simulation.py has the large one.
    """
    rng = np.random.default_rng(3)
    each, looks = compare.level(0.05)
    noise = rng.standard_t(3, (800, 16)) if heavy else rng.standard_normal((800, 16))
    races = math.log1p(0.03) + 0.02 * noise
    alarms = sum(sequence(race, each, looks) == "regression" for race in races)
    assert alarms <= 0.073 * 800
    if not heavy:
        assert alarms >= 0.02 * 800, "so rarely that it can hardly alarm at all"


def test_looking_after_each_block_at_the_plain_level_would_alarm_too_often() -> None:
    """The planted mistake: without the correction for several looks the rate is well above 5 %, so
    the test above can fail.
    """
    rng = np.random.default_rng(4)
    races = math.log1p(0.03) + 0.02 * rng.standard_normal((800, 16))
    alarms = sum(sequence(race, 0.05, tuple(range(6, 17))) == "regression" for race in races)
    assert alarms > 0.09 * 800
