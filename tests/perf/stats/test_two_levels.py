"""A series that jumps at random between two levels is called so, and nothing else is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hotlap.perf.stats import changes, two_levels


def alternating(seed: int, turn: float, n: int = 100, apart: float = 0.1) -> np.ndarray:
    """Two levels in noise of 1 %; each point is on the other side with the chance `turn`."""
    rng = np.random.default_rng(seed)
    side = np.cumsum(rng.random(n) < turn) % 2
    return np.asarray(100 * np.exp(apart * side + 0.01 * rng.standard_normal(n)))


@pytest.mark.parametrize(("turn", "least"), [(0.5, 39), (0.2, 36)])
def test_what_alternates_has_two_levels_and_no_change(turn: float, least: int) -> None:
    named = changed = 0
    for seed in range(40):
        values = alternating(seed, turn)
        changed += bool(changes.change_points(values))
        if two := two_levels.two_levels(values):
            named += 1
            assert two.low == pytest.approx(100, rel=0.01)
            assert two.high == pytest.approx(100 * math.exp(0.1), rel=0.01)
            assert two.turns == np.sum(np.diff(values > 105) != 0)
            assert two.share == np.mean(values > 105)
    assert named >= least and changed <= 40 - least


def test_newest_points_on_the_other_side_are_no_alarm() -> None:
    """Three times in a hundred it is on the upper side, and now for three points in a row."""
    rng = np.random.default_rng(1)
    side = (rng.random(60) < 0.15).astype(float)
    side[-5:] = [0, 0, 1, 1, 1]
    values = np.exp(0.1 * side + 0.005 * rng.standard_normal(60))
    assert two_levels.two_levels(values) is not None and changes.provisional(values, ()) is None


def test_a_level_that_moved_under_an_alternation_is_a_change() -> None:
    """It alternated for 50 points and then stayed at the upper level, or alternates between two
    that are higher. The alternation blurs where.
    """
    stayed = alternating(1, 0.5)
    stayed[50:] = 100 * math.exp(0.1)
    above = alternating(2, 0.5)
    above[50:] *= 1.6
    for values in (stayed, above):
        assert two_levels.two_levels(values) is None
        (step,) = changes.change_points(values)
        assert abs(step.index - 50) <= 10 and step.effect > 0


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.repeat([1.0, 1.2], 50), id="one step"),
        pytest.param(np.repeat([1.0, 1.2, 1.0, 1.2, 1.0], 20), id="levels that lasted"),
        pytest.param(np.repeat([1.0, 1.2], [8, 6]), id="a short series"),
        pytest.param(np.ones(50), id="constant"),
    ],
)
def test_steps_are_no_alternation(values: np.ndarray) -> None:
    noise = np.random.default_rng(3).standard_normal(len(values))
    assert two_levels.two_levels(values * np.exp(0.005 * noise)) is None


def test_noise_and_spikes_are_not_two_levels() -> None:
    """Spikes of any height are no level: at most 2 % of 200 series, plus three standard errors."""
    rng = np.random.default_rng(4)
    noise = 0.02 * rng.standard_normal((200, 100))
    spikes = (rng.random((200, 100)) < 0.12) * rng.exponential(0.15, (200, 100))
    assert not any(two_levels.two_levels(np.exp(x)) for x in noise)
    named = sum(two_levels.two_levels(np.exp(x)) is not None for x in noise + spikes)
    assert named <= 200 * (0.02 + 3 * math.sqrt(0.02 * 0.98 / 200))
