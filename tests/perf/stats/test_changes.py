"""The change-point detector: exact where it says so, blind to spikes, honest about noise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from hotlap.perf.stats import chance, changes


def series(
    n: int, seed: int, noise: float = 0.02, phi: float = 0.0, steps: dict[int, float] | None = None
) -> np.ndarray:
    """AR(phi) noise around a level that is multiplied at each step's index."""
    rng = np.random.default_rng(seed)
    x = np.zeros(n)
    for index in range(1, n):
        x[index] = phi * x[index - 1] + math.sqrt(1 - phi**2) * noise * rng.standard_normal()
    for index, factor in (steps or {}).items():
        x[index:] += math.log(factor)
    return 100 * np.exp(x)


def test_a_step_is_found_where_it_is_with_its_size() -> None:
    (step,) = changes.change_points(series(120, 1, steps={70: 1.1}))
    assert abs(step.index - 70) <= 1
    assert step.effect == pytest.approx(0.1, abs=0.015)
    assert step.p < 0.01


def test_two_steps_up_and_down() -> None:
    steps = changes.change_points(series(200, 2, steps={60: 1.2, 130: 1 / 1.2}))
    assert [round(step.index, -1) for step in steps] == [60, 130]
    assert [step.effect > 0 for step in steps] == [True, False]


@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_spike_is_no_step(length: int) -> None:
    values = series(100, 3)
    values[50 : 50 + length] *= 3
    assert changes.change_points(values) == ()


@pytest.mark.parametrize(("length", "steps"), [(8, 0), (30, 2)])
def test_an_excursion_that_goes_back_is_a_change_only_if_it_lasted(length: int, steps: int) -> None:
    assert len(changes.change_points(series(150, 6, steps={70: 1.4, 70 + length: 1 / 1.4}))) == steps


def test_a_first_level_of_a_few_points_is_none() -> None:
    assert changes.change_points(series(100, 7, steps={7: 1.4})) == ()


def test_five_points_at_the_end_are_a_new_level() -> None:
    (step,) = changes.change_points(series(60, 4, noise=0.01, steps={55: 1.3}))
    assert step.index == 55


def test_a_step_too_small_to_matter_is_none() -> None:
    assert changes.change_points(series(400, 5, noise=0.0005, steps={200: 1.003})) == ()


@pytest.mark.parametrize(("phi", "most"), [(0.0, 0.05), (0.3, 0.05)])
def test_series_without_a_change_are_left_alone(phi: float, most: float) -> None:
    """300 null series of 200 points; the share allowed plus three standard errors."""
    alarmed = sum(bool(changes.change_points(series(200, seed, phi=phi))) for seed in range(300))
    assert alarmed <= (most + 3 * math.sqrt(most * (1 - most) / 300)) * 300


@pytest.mark.parametrize("values", [[], [1.0] * 9, [5.0] * 50])
def test_too_short_or_constant_has_none(values: list[float]) -> None:
    assert changes.change_points(values) == ()


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
def test_what_is_no_measurement_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        changes.change_points([1.0] * 20 + [bad])


@pytest.mark.parametrize("seed", range(8))
def test_the_partition_is_the_best_of_all(seed: int) -> None:
    """Against every way to cut 22 points into segments of at least 5."""
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.standard_normal(22) * (rng.random(22) < 0.3)) + 0.3 * rng.standard_normal(22)
    penalty = 0.5

    def cost(borders: tuple[int, ...]) -> float:
        edges = [0, *borders, 22]
        if any(b - a < changes.SHORTEST for a, b in itertools.pairwise(edges)):
            return math.inf
        return sum(
            float(((x[a:b] - x[a:b].mean()) ** 2).sum()) for a, b in itertools.pairwise(edges)
        ) + penalty * len(borders)

    every = [borders for count in range(4) for borders in itertools.combinations(range(1, 22), count)]
    assert cost(tuple(changes.partition(x, penalty))) == pytest.approx(min(map(cost, every)))


@pytest.mark.parametrize("phi", [0.0, 0.3])
def test_three_points_of_a_new_level_are_a_provisional_alarm_and_chance_hardly_ever(phi: float) -> None:
    def young(values: np.ndarray) -> changes.ChangePoint | None:
        return changes.provisional(values, changes.change_points(values))

    false = [young(series(40, seed, phi=phi)) for seed in range(200)]
    assert sum(alarm is not None for alarm in false) <= 2
    alarmed = 0
    for seed in range(30):
        values = series(40, seed, phi=phi, steps={37: 1.2})
        settled = changes.change_points(values)
        alarm = changes.provisional(values, settled)
        alarmed += any(step is not None and step.index >= 35 for step in (alarm, *settled))
    assert alarmed >= 27


@pytest.mark.parametrize("length", [1, 2])
def test_a_spike_at_the_end_is_no_alarm(length: int) -> None:
    values = series(40, 1)
    values[-length:] *= 3
    assert changes.provisional(values, changes.change_points(values)) is None


def test_a_short_series_has_no_alarm() -> None:
    assert changes.provisional(series(12, 1, steps={9: 2.0}), ()) is None


@pytest.mark.parametrize(("noise", "least"), [(0.005, 58), (0.01, 48)])
def test_three_steps_ten_points_apart_are_three(noise: float, least: int) -> None:
    """Of 20 series of 90 points, so many of the 60 steps of 2.5 %, each where it is."""
    hits = 0
    for seed in range(20):
        steps = changes.change_points(series(90, seed, noise, steps={30: 1.025, 40: 1.025, 50: 1.025}))
        assert len(steps) <= 3
        hits += sum(min(abs(step.index - true) for step in steps) <= 2 for true in (30, 40, 50))
    assert hits >= least


def test_a_step_in_14_points_is_seen_and_in_13_could_be_chance() -> None:
    steps = [changes.change_points(series(14, seed, steps={6: 1.2})) for seed in range(20)]
    assert sum([step.index for step in each] == [6] for each in steps) >= 18
    assert not any(changes.change_points(series(13, seed, steps={6: 1.2})) for seed in range(20))


@pytest.mark.parametrize(("tail", "least"), [(5, 16), (9, 19)])
def test_a_step_of_four_sigma_at_the_end_is_seen(tail: int, least: int) -> None:
    """Though some of its points lie nearer to the old level."""
    length = 40 + tail
    steps = [changes.change_points(series(length, seed, steps={40: math.exp(0.08)})) for seed in range(20)]
    assert sum(len(each) == 1 and abs(each[0].index - 40) <= 1 for each in steps) >= least


def test_a_spike_of_four_points_before_the_last_is_no_level() -> None:
    values = series(60, 3)
    values[-5:-1] *= 1.3
    assert changes.change_points(values) == ()


def test_a_series_that_wanders_has_no_levels() -> None:
    """AR(0.7): at most 5 % of 200, plus three standard errors."""
    alarmed = sum(bool(changes.change_points(series(100, seed, phi=0.7))) for seed in range(200))
    assert alarmed <= 200 * (0.05 + 3 * math.sqrt(0.05 * 0.95 / 200))


def test_rounded_values_are_no_quiet_noise() -> None:
    """Of values that are mostly 20 and at times 19 or 21, most do not differ at all: their spread
    is not that of the ones that do.
    """
    rng = np.random.default_rng(1)
    for _ in range(40):
        assert changes.change_points(np.round(20 * np.exp(0.03 * rng.standard_normal(200)))) == ()


def test_a_few_wild_points_are_no_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifteen of 300 spread three times as much as the others, about the same level: fewer than one
    in ten is a change, and more would be if all points counted as equally quiet.
    """

    def alarmed() -> int:
        rng = np.random.default_rng(2)
        wild = 0.02 * rng.standard_normal((60, 300)) * np.where(np.arange(300) < 285, 1, 3)
        return sum(bool(changes.change_points(np.exp(x))) for x in wild)

    moderated = alarmed()
    monkeypatch.setattr(chance, "BORROWED", 1e9)
    assert moderated < 6 and moderated < alarmed()


@pytest.mark.parametrize("seed", range(20))
def test_what_is_pruned_could_not_have_been_the_best(seed: int) -> None:
    """Against the same recursion without pruning, on series of many blocks."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(150, 300))
    x = np.cumsum(2 * rng.standard_normal(n) * (rng.random(n) < 0.05)) + rng.standard_normal(n)
    penalty = float(rng.uniform(1, 15))
    best = np.full(n + 1, np.inf)
    best[0] = -penalty
    for end in range(changes.SHORTEST, n + 1):
        best[end] = penalty + min(
            best[start] + float(((x[start:end] - x[start:end].mean()) ** 2).sum())
            for start in range(end - changes.SHORTEST + 1)
        )
    edges = [0, *changes.partition(x, penalty), n]
    cost = sum(float(((x[a:b] - x[a:b].mean()) ** 2).sum()) for a, b in itertools.pairwise(edges))
    assert cost + penalty * (len(edges) - 2) == pytest.approx(best[n])
