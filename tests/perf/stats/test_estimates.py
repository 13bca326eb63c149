"""Statistics: worked examples against scipy and by hand, invariants by hypothesis, and the coverage
of the intervals by simulation.
"""

from __future__ import annotations

import math
import random
from statistics import fmean, median, stdev

import numpy as np
import pytest
import scipy.stats
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotlap.perf.stats import estimates

positive = st.floats(1e-6, 1e3)
blocks = st.lists(st.lists(positive, min_size=1, max_size=5), min_size=3, max_size=8)
pairs = st.lists(
    st.tuples(st.lists(positive, min_size=1, max_size=5), st.lists(positive, min_size=1, max_size=5)),
    min_size=3,
    max_size=8,
)


def autoregressive(rng: random.Random, count: int, phi: float, sd: float = 1.0) -> list[float]:
    """AR(1) with standard deviation sd, started in its stationary distribution."""
    values = [rng.gauss(0, sd)]
    while len(values) < count:
        values.append(phi * values[-1] + rng.gauss(0, sd * math.sqrt(1 - phi * phi)))
    return values


def alternating(count: int) -> list[float]:
    """Distinct values from both ends in turn: lag-1 autocorrelation below 0, so each counts."""
    return [float(index // 2 if index % 2 else count - index // 2) for index in range(count)]


def test_interval_over_blocks_is_student_t_on_the_log_scale() -> None:
    values = [1.00, 1.10, 0.95, 1.20, 1.05, 1.15]
    logs = np.log(values)
    low, high = scipy.stats.t.interval(0.95, 5, loc=logs.mean(), scale=scipy.stats.sem(logs))
    interval = estimates.interval_over_blocks(values)
    assert (interval.centre, interval.low, interval.high) == pytest.approx(
        (np.exp(logs.mean()), np.exp(low), np.exp(high)), rel=1e-12
    )
    assert (interval.n, interval.method) == (6, "blocks")
    assert interval.half_width == pytest.approx((high - low) / 2, rel=1e-12)


def test_student_t_is_the_tabulated_quantile() -> None:
    assert estimates.student_t(0.975, 5) == pytest.approx(2.570582, abs=1e-6)
    assert estimates.student_t(0.975, 15) == pytest.approx(2.131450, abs=1e-6)


def test_intervals_of_ratios_cover_the_truth_when_samples_are_correlated_and_processes_differ() -> None:
    """True ratio 1.1; 1 % between processes, 5 % and AR(0.8) within; six blocks as at the first
    look.
    """
    rng, hits, runs = random.Random(1), 0, 800
    for _ in range(runs):

        def entrant(centre: float) -> list[list[float]]:
            means = [centre * math.exp(rng.gauss(0, 0.01)) for _ in range(6)]
            return [
                [mean * math.exp(value) for value in autoregressive(rng, 10, 0.8, 0.05)] for mean in means
            ]

        ratio = estimates.ratio(entrant(1.0), entrant(1.1))
        hits += ratio.low <= 1.1 <= ratio.high
    assert 0.93 <= hits / runs <= 0.97


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_intervals_over_batches_cover_the_truth_in_one_process(phi: float) -> None:
    rng, hits, runs = random.Random(2), 0, 300
    for _ in range(runs):
        interval = estimates.interval_over_batches(
            [math.exp(value) for value in autoregressive(rng, 640, phi, 0.05)]
        )
        hits += interval.low <= 1 <= interval.high
    assert hits / runs >= 0.92


def test_interval_over_batches_by_hand() -> None:
    rng = random.Random(3)
    samples = [math.exp(value) for value in autoregressive(rng, 16 * 10 + 7, 0.95, 0.1)]
    means = np.log(samples[:160]).reshape(16, 10).mean(axis=1)
    around = means - means.mean()
    r1 = float(np.clip((around[:-1] * around[1:]).sum() / (around**2).sum(), 0, 0.8))
    half = scipy.stats.t.ppf(0.975, 15) * means.std(ddof=1) / 4 * math.sqrt((1 + r1) / (1 - r1))
    interval = estimates.interval_over_batches(samples)
    assert r1 > 0
    assert (math.log(interval.low), math.log(interval.high)) == pytest.approx(
        (means.mean() - half, means.mean() + half), rel=1e-9
    )
    assert interval.method == "batch means"


def test_autocorrelation_by_hand() -> None:
    assert estimates.autocorrelation([1.0, 2.0, 3.0, 4.0]) == pytest.approx(
        (1.5 * 0.5 - 0.5 * 0.5 + 0.5 * 1.5) / 5
    )
    assert estimates.autocorrelation([1.0, -1.0] * 50) == pytest.approx(-0.99)
    assert estimates.autocorrelation([0.1] * 50) == 0
    assert estimates.autocorrelation([1.0, 2.0]) == 0
    assert estimates.autocorrelation([0.0, 0.0, 3.0]) == pytest.approx((1 - 2) / 6)


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.6, 0.9])
def test_effective_n_follows_ar1_theory(phi: float) -> None:
    count = 40_000
    independent = estimates.effective_n(autoregressive(random.Random(4), count, phi))
    assert independent == pytest.approx(count * (1 - phi) / (1 + phi), rel=0.06)


def test_effective_n_never_exceeds_n() -> None:
    assert estimates.effective_n(alternating(40)) == 40
    assert estimates.effective_n([5.0] * 40) == 40


@given(blocks, st.floats(1e-3, 1e3))
@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_estimates_contain_their_centre_and_scale_with_the_unit(
    values: list[list[float]], factor: float
) -> None:
    estimate = estimates.estimate(values)
    larger = estimates.estimate([[factor * value for value in block] for block in values])
    assert estimate.low <= estimate.centre * (1 + 1e-12) and estimate.centre <= estimate.high * (1 + 1e-12)
    assert larger.centre == pytest.approx(factor * estimate.centre, rel=1e-9)
    assert larger.half_width == pytest.approx(estimate.half_width, rel=1e-6, abs=1e-9)


@given(pairs)
@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_a_ratio_and_its_inverse_have_the_same_interval(both: list[tuple[list[float], list[float]]]) -> None:
    base, head = [a for a, _ in both], [b for _, b in both]
    there, back = estimates.ratio(base, head), estimates.ratio(head, base)
    assert there.centre * back.centre == pytest.approx(1, rel=1e-9)
    assert there.low * back.high == pytest.approx(1, rel=1e-6)
    turned = estimates.inverse(there)
    assert (turned.centre, turned.low, turned.high) == pytest.approx(
        (back.centre, back.low, back.high), rel=1e-6
    )


def test_drift_shared_by_both_entrants_cancels_in_their_ratio() -> None:
    base = [[drift, 1.1 * drift, 0.9 * drift] for drift in (1.0, 7.0, 0.3, 2.0)]
    ratio = estimates.ratio(base, [[2 * value for value in block] for block in base])
    assert (ratio.low, ratio.centre, ratio.high) == pytest.approx((2, 2, 2), rel=1e-12)
    assert estimates.estimate(base).half_width > 1


def test_a_ratio_is_over_the_blocks_that_both_have() -> None:
    ratio = estimates.ratio([[1.0], [], [1.0], [1.0], [9.0]], [[3.0], [5.0], [3.0], [3.0]])
    assert (ratio.centre, ratio.n) == (pytest.approx(3), 3)
    with pytest.raises(ValueError, match="share no block"):
        estimates.ratio([[1.0], []], [[], [1.0]])


def test_a_ratio_in_one_block_is_over_its_pairs() -> None:
    rng = random.Random(5)
    base = [math.exp(rng.gauss(0, 0.5)) for _ in range(64)]
    ratio = estimates.ratio([base], [[1.5 * value for value in base]])
    assert (ratio.low, ratio.high) == pytest.approx((1.5, 1.5))
    assert ratio.method == "batch means"
    assert estimates.ratio([base], [base[:-1]]).n == 63


def test_what_hits_a_whole_round_cancels_in_the_ratio() -> None:
    """Half of the rounds are slowed down, a few more on one side: the difference of the medians
    jumps between the two levels, the pairs do not.
    """
    base = [[1.0] * 10 + [3.0] * 9] * 6
    head = [[1.1] * 9 + [3.3] * 10] * 6
    assert estimates.ratio(base, head).centre == pytest.approx(1.1)
    assert estimates.median(head[0]) / estimates.median(base[0]) == pytest.approx(3.3)


def test_a_block_counts_by_its_median() -> None:
    calm = [[1.0, 1.0, 1.0], [1.1, 1.1, 1.1], [1.2, 1.2, 1.2]]
    spiked = [[1.0, 1.0, 900.0], [1.1, 1.1, 1.1], [1.2, 1.2, 1.2]]
    assert estimates.estimate(spiked) == estimates.estimate(calm)


@pytest.mark.parametrize(
    ("values", "method", "n"),
    [
        ([[1.0, 1.2], [1.1], [1.3]], "blocks", 3),
        ([[1.0 + index % 5 for index in range(32)]], "batch means", None),
        ([[1.0] * 31], "none", 1),
        ([[1.0], [1.2]], "none", 2),
        ([[1.0], [], [1.2]], "none", 2),
        ([[1.0], [0.0], [1.2]], "none", 3),
    ],
)
def test_what_an_interval_rests_on(values: list[list[float]], method: str, n: int | None) -> None:
    estimate = estimates.estimate(values)
    assert estimate.method == method
    assert n is None or estimate.n == n
    assert math.isinf(estimate.half_width) == (method == "none")


def test_no_samples_are_no_estimate() -> None:
    with pytest.raises(ValueError, match="no samples"):
        estimates.estimate([[], []])


def test_two_blocks_have_a_geometric_centre_without_interval() -> None:
    estimate = estimates.estimate([[2.0], [8.0]])
    assert (estimate.centre, estimate.low, estimate.high) == (pytest.approx(4), 0, math.inf)
    turned = estimates.inverse(estimate)
    assert (turned.centre, turned.low, turned.high) == (pytest.approx(0.25), 0, math.inf)


@pytest.mark.parametrize(("name", "least"), [("p90", 29), ("p95", 59), ("p99", 299), ("p99.9", 2995)])
def test_percentiles_need_their_least_number_of_samples(name: str, least: int) -> None:
    q = float(name[1:]) / 100
    assert 1 - q**least >= 0.95 > 1 - q ** (least - 1)
    enough, n = estimates.percentiles(alternating(least))
    assert n == least
    assert enough[name] == np.percentile(alternating(least), 100 * q, method="inverted_cdf")
    assert name not in estimates.percentiles(alternating(least - 1))[0]


def test_correlated_samples_bear_no_percentile() -> None:
    percentiles, n = estimates.percentiles([float(index) for index in range(58)])
    assert percentiles == {}
    assert n < 29


@given(st.lists(positive, min_size=29, max_size=200))
@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_percentiles_are_samples_in_order(samples: list[float]) -> None:
    percentiles, _ = estimates.percentiles(samples)
    assert list(percentiles.values()) == sorted(percentiles.values())
    assert set(percentiles.values()) <= set(samples)
    assert all(value >= median(samples) for value in percentiles.values())


def test_best_rounds_by_hand() -> None:
    """Logs -0.1, 0.1 | 0.1, 0.3: variance within 0.02, of the means 0.02, so between 0.02 - 0.02 /
    2 = 0.01; sqrt(100 x 2) = 14.1.
    """
    values = [[math.exp(-0.1), math.exp(0.1)], [math.exp(0.1), math.exp(0.3)]]
    within = fmean([stdev([-0.1, 0.1]) ** 2, stdev([0.1, 0.3]) ** 2])
    between = stdev([0.0, 0.2]) ** 2 - within / 2
    assert (within, between) == pytest.approx((0.02, 0.01))
    assert estimates.best_rounds(values, 100.0, 1.0) == 15
    assert estimates.best_rounds(values, 1.0, 1.0) == 10
    assert estimates.best_rounds(values, 1e6, 1.0) == 40


def test_best_rounds_without_a_difference_between_processes_is_the_most() -> None:
    assert estimates.best_rounds([[1.0, 1.1, 1.2], [1.0, 1.1, 1.2]], 1.0, 1.0, most=33) == 33


def test_best_rounds_with_too_little_to_go_by_is_the_least() -> None:
    assert estimates.best_rounds([[1.0, 1.1], [1.0]], 1e9, 1.0, least=7) == 7
