"""The chance of a step in a series without one is what it says, whatever the correlation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hotlap.perf.stats import chance


def noise(count: int, n: int, phi: float) -> np.ndarray:
    """AR(phi) noise of unit variance, a series a row."""
    rng = np.random.default_rng(n)
    x = rng.standard_normal((count, n))
    for index in range(1, n):
        x[:, index] = phi * x[:, index - 1] + math.sqrt(1 - phi**2) * x[:, index]
    return x


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.7])
def test_few_series_without_a_step_have_an_unlikely_one(phi: float) -> None:
    """The smallest chance of all places is below 5 % in 5 % of 300 series, to within three standard
    errors; of AR(0.7) noise in up to twice as many, of independent noise in fewer.
    """
    unlikely = 0
    for x in noise(300, 40, phi):
        places = range(chance.SHORTEST, 40 - chance.SHORTEST + 1)
        unlikely += min(chance.chances(x, [place])[0] for place in places) <= 0.05
    most = 0.10 if phi > 0.5 else 0.05
    assert unlikely <= 300 * (most + 3 * math.sqrt(most * (1 - most) / 300))


def test_innovations_are_the_least_over_the_correlation() -> None:
    (off,) = noise(1, 50, 0.6)
    off -= off.mean()
    tries = [
        (1 - phi**2) * off[0] ** 2 + float(((off[1:] - phi * off[:-1]) ** 2).sum())
        for phi in np.linspace(0, chance.MOST_CORRELATED, 2000)
    ]
    assert chance.innovations(off) == pytest.approx(min(tries), rel=1e-5)


def test_a_wandering_series_makes_a_step_likely_that_quiet_noise_makes_unlikely() -> None:
    """The same step in noise of the same spread."""
    level = 1.2 * (np.arange(60) >= 30)
    quiet, wandering = (
        np.median([chance.chances(x + level, [30])[0] for x in noise(50, 60, phi)]) for phi in (0.0, 0.8)
    )
    assert quiet < 0.02 and wandering > 0.1


def test_points_that_spread_more_make_a_step_likelier() -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal(100)
    x[-10:] = 1.5 + 0.3 * (x[-10:] - x[-10:].mean())
    wild = x.copy()
    wild[-10:] = 1.5 + 10 * (x[-10:] - 1.5)
    assert chance.chances(x, [90])[0] < 0.01 < chance.chances(wild, [90])[0]


def test_the_chance_of_the_largest_step_is_that_of_simulation() -> None:
    """Of independent noise with a known level and spread."""
    x = noise(4000, 100, 0.0)
    sums = np.cumsum(x, axis=1)
    k = np.arange(chance.SHORTEST, 100 - chance.SHORTEST + 1)
    z = np.abs(sums[:, k - 1] - sums[:, -1:] * k / 100) / np.sqrt(k * (100 - k) / 100)
    share = float(np.mean(z.max(axis=1) >= 3.2))
    # Simulated series have 91 places, the formula's have all between: it may only be too large.
    assert share < chance.anywhere(3.2, 100) < 2.2 * share
