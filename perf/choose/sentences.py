"""A choice in words: what was chosen and how sure that is, or what stood in the way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ..lookup.cases import LIBRARY_DEFAULTS
from ..reports.outcome import rightness
from ..reports.report import way
from ..stats import estimates
from ..terms.result import Result
from ..terms.units import scaled, significant
from . import pipeline
from .causes import cause
from .choose import AS_FAST, Choice, best_of, plainly
from .wishes import Limit, Quantity, Wish, shown_value

# The fewest blocks that give an interval.
LEAST_BLOCKS = 3


def question(wish: Wish) -> str:
    """Returns what is asked for."""
    bounds = f", subject to {', '.join(map(str, wish.bounds))}" if wish.bounds else ""
    return f"goal: {'min' if wish.goal.better == 'lower' else 'max'} {wish.goal.name}{bounds}"


def rows(choice: Choice) -> Iterator[tuple[str, str, str, str]]:
    """Yields for each way that was thought of its name, its latency in the search, that beside the
    chosen one's, and what became of it: the fastest first, then what has no time, by reason.
    """
    chosen = searched(choice)
    timed = [result for result in choice.search if "latency" in result.metrics]
    for result in sorted(timed, key=lambda each: each.metrics["latency"].centre):
        times = ratio(chosen, result) if chosen is not None and result is not chosen else None
        beside = f"{significant(times.centre)}x" if times is not None else ""
        yield name(result), measured(result, "latency"), beside, became(choice, result, chosen)
    reasons: dict[str, list[Result]] = {}
    for result in choice.search:
        if "latency" not in result.metrics:
            reasons.setdefault(cause(result, chosen, choice.wish), []).append(result)
    for reason, results in reasons.items():
        yield names(results), "", "", reason


def became(choice: Choice, result: Result, chosen: Result | None) -> str:
    """Returns what became of a way that has a time."""
    if chosen is None:
        return cause(result, None, choice.wish)
    if result is chosen:
        return "chosen"
    breaks = any(bound.met(result) is False for bound in choice.wish.bounds)
    times = ratio(chosen, result)
    if times.low > 1 + AS_FAST or breaks:
        return cause(result, chosen, choice.wish)
    if not math.isfinite(times.half_width):
        return "too few blocks to tell; raise --budget"
    if result.case.options == LIBRARY_DEFAULTS:
        return "as fast, by default"
    return "as fast as far as is known, and not as simple"


def searched(choice: Choice) -> Result | None:
    """Returns what the search found of the chosen case."""
    wanted = choice.chosen.case if choice.chosen is not None else None
    return next((result for result in choice.search if result.case == wanted), None)


def holds(choice: Choice) -> bool:
    """Returns whether the choice was confirmed and every bound shown on fresh blocks."""
    chosen = confirmed(choice, choice.chosen) if choice.chosen is not None else None
    return chosen is not None and all(bound.met(chosen) for bound in choice.wish.bounds)


def answer(choice: Choice) -> Iterator[str]:
    """Yields the answer, then what it rests on."""
    if choice.chosen is None:
        yield from nothing(choice)
        return
    chosen = confirmed(choice, choice.chosen)
    if chosen is None:
        yield f"{name(choice.chosen)} is the best so far, and not confirmed: {unconfirmed(choice)}"
        return
    yield f"{name(chosen)}: {comparisons(choice, chosen)}{rightness(chosen)}"
    yield f"latency {measured(chosen, 'latency')}, memory {measured(chosen, 'memory')}"
    if (plain := without_launcher(choice)) is not None:
        times = ratio(chosen, plain)
        yield (
            f"the same file without what run.sh sets: {significant(times.centre)} times its time"
            f" {interval(times)}"
        )
    if choice.subject.task is None:
        yield "no evaluation given: accuracy unknown, outputs are held against fp64 alone"
    for bound in choice.wish.bounds:
        yield standing(bound, chosen)
    if choice.pipelined is not None:
        yield pipeline.sentence(choice.pipelined)
    if choice.why:
        yield f"chosen for being simpler: {choice.why}"
    if choice.runner_up is not None and (other := confirmed(choice, choice.runner_up)) is not None:
        times = ratio(chosen, other)
        yield f"runner-up: {name(other)}, {significant(times.centre)} times its time {interval(times)}"


def name(result: Result) -> str:
    label = way(result.case)
    return f"{label} {result.case.precision}" if result.case.precision not in label else label


def confirmed(choice: Choice, result: Result) -> Result | None:
    """Returns what the second race found of a case; None where that is no interval."""
    return next(
        (
            other
            for other in choice.confirm
            if other.case == result.case
            and "latency" in other.metrics
            and len(other.metrics["latency"].values) >= LEAST_BLOCKS
        ),
        None,
    )


def without_launcher(choice: Choice) -> Result | None:
    """Returns what the second race found of the chosen file by itself; None where it has no time,
    or is a library by default, which the first line has.
    """
    assert choice.chosen is not None
    case = plainly(choice.chosen.case)
    if any(result.case == case for result in choice.search):
        return None
    return next((each for each in choice.confirm if each.case == case and "latency" in each.metrics), None)


def unconfirmed(choice: Choice) -> str:
    """Returns why the second race confirmed nothing."""
    assert choice.chosen is not None
    again = next((other for other in choice.confirm if other.case == choice.chosen.case), None)
    if again is None:
        return "stopped before the second race"
    if "latency" not in again.metrics:
        return str(again.reason)
    blocks = len(again.metrics["latency"].values)
    return f"the second race had time for {blocks} of at least {LEAST_BLOCKS} blocks; raise --budget"


def comparisons(choice: Choice, chosen: Result) -> str:
    """Returns how many times as fast it is as the best default and as the baseline by default,
    beside what the search had said.
    """
    parts = []
    best, baseline = choice.best_default, choice.search[0]
    for other in dict.fromkeys([best.case, baseline.case] if best is not None else [baseline.case]):
        fresh = next(
            (each for each in choice.confirm if each.case == other and "latency" in each.metrics), None
        )
        if fresh is None:
            continue
        gain = estimates.inverse(ratio(fresh, chosen))
        early = next(each for each in choice.search if each.case == other)
        first = next(each for each in choice.search if each.case == chosen.case)
        searched = estimates.inverse(ratio(early, first)) if "latency" in early.metrics else None
        beside = f"; {significant(searched.centre)} in the search" if searched is not None else ""
        parts.append(
            f"{significant(gain.centre)} times as fast as {other.backend} by default {interval(gain)}{beside}"
        )
    return ", ".join(parts) or "nothing to compare it with"


def ratio(base: Result, head: Result) -> estimates.Estimate:
    return estimates.ratio(base.metrics["latency"].values, head.metrics["latency"].values)


def interval(value: estimates.Estimate) -> str:
    if not math.isfinite(value.half_width):
        return "(no interval: too few blocks)"
    return f"[{significant(value.low)}, {significant(value.high)}]"


def measured(result: Result, metric: str) -> str:
    samples = result.metrics.get(metric)
    return "unknown" if samples is None else scaled(samples.centre, samples.unit)


def shown(quantity: Quantity, result: Result) -> str:
    """Returns what a result shows of a quantity, with its interval."""
    value = quantity.of(result)
    if value is None:
        return f"unknown ({quantity.remedy})"
    centre = shown_value(quantity, value.centre)
    if value.low == value.high:
        return centre
    if not math.isfinite(value.high):
        return f"{centre} (no interval yet)"
    return f"{centre} [{shown_value(quantity, value.low)}, {shown_value(quantity, value.high)}]"


def standing(bound: Limit, result: Result) -> str:
    """Returns whether a bound holds on fresh blocks."""
    words = {True: "holds", False: "does not hold", None: "could not be shown, raise --budget"}
    return f"{bound} {words[bound.met(result)]}: {shown(bound.quantity, result)}"


def nothing(choice: Choice) -> Iterator[str]:
    """Yields why nothing was chosen: the bounds that are missed, and who comes nearest."""
    timed = [
        result
        for result in choice.search
        if "latency" in result.metrics and result.case.options != LIBRARY_DEFAULTS
    ]
    if not timed:
        yield "nothing that can be shipped was right and had a time:"
        for result in choice.search:
            if result.reason is not None:
                yield f"  {name(result)}: {result.reason}"
        return
    for bound in choice.wish.bounds:
        if any(bound.met(result) is True for result in timed):
            continue
        nearest = best_of(timed, Wish(bound.quantity, ()))
        if nearest is None:
            yield f"nothing is known of {bound.quantity.name}: {bound.quantity.remedy}"
        else:
            yield f"nothing meets {bound}; nearest: {name(nearest)}, {shown(bound.quantity, nearest)}"
    if all(any(bound.met(result) for result in timed) for bound in choice.wish.bounds):
        each = ", ".join(str(bound) for bound in choice.wish.bounds)
        yield f"each of {each} is met by something, and nothing meets all of them"
    yield f"what would: {remedies(choice)}"


def remedies(choice: Choice) -> str:
    """Returns what was not tried, as the next thing to do."""
    untried = [
        result for result in choice.search if result.reason is not None and result.reason.code == "not_tried"
    ]
    if untried:
        return f"{untried[0].reason.detail if untried[0].reason else ''} ({names(untried)})"
    return "another bound, a smaller model, or more of the machine"


def names(results: Sequence[Result]) -> str:
    return ", ".join(name(result) for result in results)
