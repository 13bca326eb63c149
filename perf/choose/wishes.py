"""What a person wants: one quantity as small or as large as it can be, and bounds on others, as
`min latency` and `drop<=0.5%, memory<=500MB, p99<=20ms`.

A bound holds where what was measured shows it: of a quantity with an interval the whole interval,
of a percentile as many calls as its order statistic asks for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Literal, NamedTuple

from ..lookup import plugins
from ..stats import estimates
from ..terms import units
from ..terms.reasons import Misuse
from ..terms.result import Result, Samples
from ..terms.units import scaled, significant

# Unit as a person writes it -> base units.
UNITS = {
    "s": {"s": 1.0, "ms": 1e-3, "us": 1e-6},
    "B": units.BYTES,
    "1/s": {"/s": 1.0, "1/s": 1.0, "": 1.0},
    "J": {"J": 1.0, "mJ": 1e-3},
    "": {"": 1.0, "%": 0.01},
}
GOAL = re.compile(r"(min|max)\s+(.+)")
BOUND = re.compile(r"([a-z0-9. _-]+?)\s*(<=|>=)\s*([0-9.]+)\s*([A-Za-z/%1]*)")


class Shown(NamedTuple):
    """What was measured of a quantity: the centre, and the ends of its 95 % interval."""

    centre: float
    low: float
    high: float


class Quantity(NamedTuple):
    """What a goal or a bound can be about."""

    name: str
    # Base unit; empty for a share.
    unit: str
    better: Literal["lower", "higher"]
    # From a result to what it shows; None where it shows nothing.
    of: Callable[[Result], Shown | None]
    # What a person has to do where it shows nothing.
    remedy: str = "raise --budget"


def sampled(metric: str) -> Callable[[Result], Shown | None]:
    """Returns a function that reads a metric with its interval."""

    def shown(result: Result) -> Shown | None:
        samples = result.metrics.get(metric)
        if samples is None:
            return None
        estimate = samples.estimate
        if estimate.method == "none":
            return Shown(estimate.centre, 0.0, math.inf)
        return Shown(estimate.centre, estimate.low, estimate.high)

    return shown


def percentile(name: str) -> Callable[[Result], Shown | None]:
    """Returns a function that reads a percentile of single calls. Its upper end is the largest
    call: that a share q of all calls is below it is known with 95 % from as many effective calls as
    1 - q**n >= 0.95 asks for (estimates.TAIL_N).
    """

    def shown(result: Result) -> Shown | None:
        samples = result.metrics.get("call_latency")
        centre = samples.details.get(name) if samples is not None else None
        if samples is None or not isinstance(centre, int | float):
            return None
        return Shown(centre, centre, largest(samples))

    return shown


def largest(samples: Samples) -> float:
    return max(samples.flat)


def exact(value: Callable[[Result], float | None]) -> Callable[[Result], Shown | None]:
    """Returns a function that reads a quantity without an interval."""

    def shown(result: Result) -> Shown | None:
        read = value(result)
        return None if read is None else Shown(read, read, read)

    return shown


def size(result: Result) -> float | None:
    return None if result.placement is None else result.placement.counters.get("artefact_bytes")


def drop(result: Result) -> float | None:
    """Returns how much worse the task metric is, in its own unit."""
    task = result.deviation.task if result.deviation is not None else None
    return None if task is None else max(0.0, task.loss)


def deviation(result: Result) -> float | None:
    """Returns the largest share of the allowed distance to fp64 that outputs use up."""
    if result.deviation is None or not result.deviation.distances:
        return None
    distances = result.deviation.distances.values()
    return max(each.rmse / each.tolerance if each.tolerance > 0 else 0.0 for each in distances)


QUANTITIES = {
    quantity.name: quantity
    for quantity in (
        Quantity("latency", "s", "lower", sampled("latency")),
        *(Quantity(name, "s", "lower", percentile(name)) for name in estimates.TAIL_N),
        Quantity("throughput", "1/s", "higher", sampled("throughput")),
        Quantity("memory", "B", "lower", sampled("memory")),
        Quantity("cold start", "s", "lower", sampled("cold_start")),
        Quantity("energy", "J", "lower", sampled("energy"), "this machine has no meter of energy"),
        Quantity("size", "B", "lower", exact(size)),
        Quantity("drop", "", "lower", exact(drop), "give the workload an Evaluation"),
        Quantity("deviation", "", "lower", exact(deviation)),
    )
}
# What can be as good as it can be; the others only have bounds.
GOALS = ("latency", "throughput", "memory", "cold start", "energy", "size")


class Limit(NamedTuple):
    """A bound on a quantity, in its base unit."""

    quantity: Quantity
    relation: Literal["<=", ">="]
    value: float
    # As it was written.
    text: str

    def __str__(self) -> str:
        return self.text

    def met(self, result: Result) -> bool | None:
        """Returns whether a result shows that the bound holds; None where it shows neither."""
        shown = self.quantity.of(result)
        if shown is None:
            return None
        if self.relation == "<=":
            return True if shown.high <= self.value else False if shown.low > self.value else None
        return True if shown.low >= self.value else False if shown.high < self.value else None


class Wish(NamedTuple):
    """A goal with its bounds."""

    goal: Quantity
    bounds: tuple[Limit, ...]

    def names(self) -> set[str]:
        return {self.goal.name, *(bound.quantity.name for bound in self.bounds)}


def parse(goal: str, bounds: str) -> Wish:
    """Reads `min latency` and `memory<=500MB, p99<=20ms`. Raises Misuse with the nearest words."""
    match = GOAL.fullmatch(goal.strip())
    if match is None:
        raise Misuse(f"--goal {goal[:60]!r}: expected min or max and a quantity, such as 'min latency'")
    quantity = known(match[2], GOALS)
    way = {"lower": "min", "higher": "max"}[quantity.better]
    if match[1] != way:
        raise Misuse(
            f"--goal {goal!r}: of {quantity.name} the best is the {way}imum: '{way} {quantity.name}'"
        )
    return Wish(quantity, tuple(bound(part) for part in bounds.split(",") if part.strip()))


def bound(text: str) -> Limit:
    """Reads `p99<=20ms`. Raises Misuse."""
    match = BOUND.fullmatch(text.strip())
    if match is None:
        raise Misuse(f"--subject-to {text.strip()[:60]!r}: expected NAME<=VALUE, such as p99<=20ms")
    quantity = known(match[1].strip(), tuple(QUANTITIES))
    known_units = UNITS[quantity.unit]
    if match[4] not in known_units:
        raise Misuse(
            f"--subject-to {text.strip()!r}: {match[4] or 'a number alone'} is no unit of {quantity.name};"
            f" use {', '.join(filter(None, known_units))}"
        )
    try:
        value = float(match[3])
    except ValueError:
        raise Misuse(f"--subject-to {text.strip()!r}: {match[3]} is no number") from None
    relation: Literal["<=", ">="] = "<=" if match[2] == "<=" else ">="
    if (relation == "<=") != (quantity.better == "lower"):
        other = "<=" if quantity.better == "lower" else ">="
        raise Misuse(f"--subject-to {text.strip()!r}: {quantity.name} is bounded by {other}")
    return Limit(quantity, relation, value * known_units[match[4]], "".join(text.split()))


def known(name: str, names: tuple[str, ...]) -> Quantity:
    """Raises Misuse with the nearest names."""
    plain = name.replace("_", " ").replace("-", " ").strip()
    if plain not in names:
        raise plugins.Unknown("quantity", name, names)
    return QUANTITIES[plain]


def shown_value(quantity: Quantity, value: float) -> str:
    """Returns a value of a quantity for people."""
    if quantity.unit:
        return scaled(value, quantity.unit)
    if quantity.name == "drop":
        return f"{significant(100 * value, 2)}%"
    return significant(value, 2)
