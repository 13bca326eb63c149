"""The difference that an experiment will find, before it is run.

How much pairs spread is known from a pilot of a few, and so hardly known. The chance of finding a
difference is therefore averaged over what the pilot leaves open: so planned, experiments find
theirs as often as stated, some of them nearly always and some less.
"""

from __future__ import annotations

import math
from functools import cache

# The chance with which the difference is found: more than the usual 0.8, which is then surely met.
POWER = 0.85
# Points at which the average over the pilot is taken.
POINTS = 400
# Standard deviations of the largest difference that is looked for.
MOST = 1e4
# From here on a noncentral t is above every quantile that is asked for.
FAR = 30.0


@cache
def _factor(pilot: int, pairs: int, level: float, power: float) -> float:
    """Returns the detectable difference in standard deviations as the pilot estimated them;
    infinite where that is more than anybody asks for.
    """
    import numpy as np
    from scipy.optimize import brentq
    from scipy.special import chdtri, nctdtr, stdtrit

    # How the true deviation stands to the estimated one: s^2 / sigma^2 is chi^2 / freedom.
    tails = (np.arange(POINTS) + 0.5) / POINTS
    estimated = np.sqrt(chdtri(pilot - 1, tails) / (pilot - 1))
    critical = float(stdtrit(pairs - 1, 1 - level / 2))

    def lacks(factor: float) -> float:
        shift = factor * estimated * math.sqrt(pairs)
        chance = np.where(
            shift > FAR + critical, 1.0, 1 - nctdtr(pairs - 1, np.minimum(shift, FAR + critical), critical)
        )
        return float(chance.mean()) - power

    return float(brentq(lacks, 0.0, MOST)) if lacks(MOST) > 0 else math.inf


def detectable(spread: float, pilot: int, pairs: int, level: float, power: float = POWER) -> float:
    """Returns the difference that a two-sided test of so many pairs at this level finds with a
    chance of `power`.

    spread: standard deviation of the differences of the pilot's pairs, of which there were `pilot`,
    at least 2. Infinite for fewer than two pairs.
    """
    if pairs < 2:
        return math.inf
    return spread * _factor(pilot, pairs, level, power)
