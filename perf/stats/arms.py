"""Compares the arms of an experiment with its control, over seeds that both were run with.

A seed gives a pair: arm minus control. The test is Student's t of the differences, whatever their
correlation: it keeps its level where the pairs have none and where it is negative. Welch's test,
taken only where the correlation seen is not positive, does not (docs/experiments/README.md has the
rates), so it is shown beside and judges nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import StatisticsError, correlation, stdev
from typing import Literal

import msgspec

from .compare import MOST_FLIPPED, holm, sign_flip
from .estimates import fmean, student_t

Answer = Literal["better", "worse", "no difference", "could not tell"]
# The chance that any arm is called different though none is, and the chance that any is called no
# different though it differs by the smallest effect of interest.
ALPHA = 0.05


class Contrast(msgspec.Struct, frozen=True):
    """What the pairs say of an arm against the control. Differences are arm - control, in the
    metric's unit.
    """

    answer: Answer
    # Why it could not be told, or what limits the answer; empty where nothing does.
    reason: str
    # Seeds with which both have a value.
    pairs: int
    # The control's mean over the pairs, and the mean difference.
    control: float
    difference: float
    # The ends of the interval that the answer is read from: without 0 where they differ, within the
    # smallest effect where they do not.
    low: float
    high: float
    confidence: float
    # Standard deviation of the differences.
    spread: float
    # Two-sided, of no difference: Student's t, and all sign patterns (None: too many or too few).
    p: float
    p_signs: float | None
    # Of a difference of at least the smallest effect: small where it is surely smaller.
    p_smaller: float
    # Pearson's, of the pairs; None where one side does not vary.
    correlation: float | None
    # Two-sided p of Welch's test, which takes the two sides as unpaired.
    p_unpaired: float
    # Seeds without a value.
    failed: int
    control_failed: int


def contrasts(
    control: Sequence[float | None],
    arms: Mapping[str, Sequence[float | None]],
    smallest: float,
    better: Literal["lower", "higher"],
    alpha: float = ALPHA,
) -> dict[str, Contrast]:
    """Returns what is known of each arm.

    control, arms: the metric by seed, all in the same order; None where the training failed.
    smallest: effect of interest, in the metric's unit, above 0. Both questions, whether an arm
    differs and whether it differs by less than `smallest`, are judged at alpha over all arms
    (Holm).
    """
    pairs = {
        name: [(a, b) for a, b in zip(control, values, strict=True) if a is not None and b is not None]
        for name, values in arms.items()
    }
    differences = {name: [b - a for a, b in each] for name, each in pairs.items()}
    p_different = {name: two_sided(each) for name, each in differences.items()}
    p_smaller = {name: surely_smaller(each, smallest) for name, each in differences.items()}
    levels = [alpha / rank for rank in range(1, len(arms) + 1)]
    judged = dict(zip(arms, holm(list(p_different.values()), levels), strict=True))
    judged_smaller = dict(zip(arms, holm(list(p_smaller.values()), levels), strict=True))
    result = {}
    for name, each in differences.items():
        smaller = p_smaller[name] <= judged_smaller[name]
        answer, reason = answered(
            p_different[name] <= judged[name], smaller, each, better, missing(control), missing(arms[name])
        )
        level = 2 * judged_smaller[name] if smaller else judged[name]
        result[name] = Contrast(
            answer,
            reason,
            len(each),
            fmean(side for side, _ in pairs[name]) if each else math.nan,
            fmean(each) if each else math.nan,
            *interval(each, level),
            1 - level,
            stdev(each) if len(each) > 1 else math.inf,
            p_different[name],
            two_sided_by_signs(each),
            p_smaller[name],
            correlated(pairs[name]),
            welch(pairs[name]),
            missing(arms[name]),
            missing(control),
        )
    return result


def answered(
    different: bool,
    smaller: bool,
    differences: Sequence[float],
    better: Literal["lower", "higher"],
    control_failed: int,
    failed: int,
) -> tuple[Answer, str]:
    """Returns the answer and what limits it.

    What fails is no accident: an arm that failed is never called better, or no different, by the
    seeds with which it did not, and the control's failures never make an arm worse.
    """
    if len(differences) < 2:
        return "could not tell", f"{len(differences)} seeds have a value of both, and two are needed"
    answer: Answer = "could not tell"
    if smaller:
        answer = "no difference"
    elif different:
        answer = "better" if (fmean(differences) < 0) == (better == "lower") else "worse"
    limits = []
    if constant(differences):
        limits.append("all pairs differ by the same")
    if smaller and different:
        limits.append("there is a difference, smaller than the effect of interest")
    if failed:
        limits.append(f"{failed} of its trainings failed")
    if control_failed:
        limits.append(f"{control_failed} of the control's trainings failed")
    spoilt = failed and answer in ("better", "no difference")
    if spoilt or (control_failed and answer in ("worse", "no difference")):
        return "could not tell", "; ".join([*limits, f"of the others alone: {answer}"])
    return answer, "; ".join(limits)


def missing(values: Sequence[float | None]) -> int:
    return sum(value is None for value in values)


def two_sided(differences: Sequence[float]) -> float:
    """Returns the p of no difference, by Student's t; 1 of fewer than two."""
    return min(2 * min(_below(differences, 0.0), _below([-each for each in differences], 0.0)), 1.0)


def surely_smaller(differences: Sequence[float], smallest: float) -> float:
    """Returns the p of a difference of at least `smallest`, either way: two one-sided tests
    (Schuirmann, J. Pharmacokinetics and Biopharmaceutics 15, 1987); 1 of fewer than two values.
    """
    return max(
        _below(differences, smallest),
        _below([-each for each in differences], smallest),
    )


def _below(values: Sequence[float], margin: float) -> float:
    """Returns the one-sided p of a mean of at least margin.

    Values that are all the same say nothing of how much they vary; what counts is then how rare it
    is that so many lie on one side.
    """
    from scipy.special import stdtr

    if len(values) < 2:
        return 1.0
    mean = fmean(values) - margin
    if constant(values):
        return 2.0 ** -len(values) if mean < 0 else 1.0
    return float(stdtr(len(values) - 1, mean / stdev(values) * math.sqrt(len(values))))


def constant(values: Sequence[float]) -> bool:
    """Whether values differ by rounding alone."""
    return max(values) - min(values) <= 1e-12 * max(map(abs, values))


def two_sided_by_signs(differences: Sequence[float]) -> float | None:
    """Returns the p of no difference that asks for a symmetric distribution alone."""
    if not 2 <= len(differences) <= MOST_FLIPPED:
        return None
    return min(2 * min(sign_flip(differences), sign_flip([-each for each in differences])), 1.0)


def interval(differences: Sequence[float], level: float) -> tuple[float, float]:
    """Returns the ends of Student's interval of confidence 1 - level; infinite of fewer than
    two.
    """
    if len(differences) < 2:
        return -math.inf, math.inf
    half = student_t(1 - level / 2, len(differences) - 1) * stdev(differences) / math.sqrt(len(differences))
    return fmean(differences) - half, fmean(differences) + half


def correlated(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Returns Pearson's correlation of the pairs; None where one side does not vary."""
    try:
        return correlation(*zip(*pairs, strict=True)) if len(pairs) > 1 else None
    except StatisticsError:
        return None


def welch(pairs: Sequence[tuple[float, float]]) -> float:
    """Returns the two-sided p of equal means of two unpaired samples (Welch, Biometrika 34, 1947);
    1 of fewer than two, or where neither varies.
    """
    from scipy.special import stdtr

    if len(pairs) < 2:
        return 1.0
    sides = [list(side) for side in zip(*pairs, strict=True)]
    parts = [stdev(side) ** 2 / len(side) for side in sides]
    if not sum(parts):
        return 1.0
    freedom = sum(parts) ** 2 / sum(part**2 / (len(pairs) - 1) for part in parts)
    t = (fmean(sides[1]) - fmean(sides[0])) / math.sqrt(sum(parts))
    return float(2 * stdtr(freedom, -abs(t)))
