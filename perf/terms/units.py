"""Scales quantities for print, in one place: base units (s, B, 1/s, J, FLOP) inside, prefixes only
here.
"""

from __future__ import annotations

import math
import re

from .reasons import Misuse

# The longest time that can be asked for, s: a year; a kernel's clock takes some hundred of them.
MOST_S = 366 * 86400.0
# What is written without an exponent at most: near the largest float, rounding overflows.
MOST_WRITTEN = 1e300
# Factor and prefix, the largest first.
_DECIMAL = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
# Factor and unit, the largest first.
_TIME = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_BYTES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1.0, "B"))
# Units that `scaled` knows.
UNITS = ("s", "B", "J", "1/s", "FLOP", "FLOP/s")
# Steps between ticks, times a power of ten: each at most 2.5 times the next, so that where one has
# fewer than three ticks the next has no more than five.
_STEPS = (5.0, 2.5, 2.0, 1.0)
# The same for counts.
_WHOLE_STEPS = (5.0, 3.0, 2.0, 1.0)
# Ticks of an axis, at least.
_FEWEST_TICKS = 3
# Unit of memory as a user writes it -> B.
BYTES = {
    "B": 1.0,
    "kB": 1e3,
    "KB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
# Unit as a user writes it -> s.
_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "": 1.0}


def significant(value: float, digits: int = 3) -> str:
    """Writes `digits` significant digits without an exponent: 0.0123, 1.23, 12.3, 1230."""
    if value == 0 or not math.isfinite(value) or abs(value) > MOST_WRITTEN:
        return f"{value:g}"
    places = digits - 1 - int(f"{value:.{digits - 1}e}".partition("e")[2])
    return f"{round(value, places):.{max(0, places)}f}"


def scaled(value: float, unit: str, digits: int = 3) -> str:
    """Writes a quantity of a base unit (s, B, 1/s, J, FLOP, FLOP/s) with a prefix that suits."""
    if not math.isfinite(value):
        return f"{value:g} {unit}"
    factor, name = _scale(value, unit)
    return f"{significant(value / factor, digits)}{name}"


def _scale(value: float, unit: str) -> tuple[float, str]:
    """Returns the factor of the prefix that suits a quantity, and what stands behind its number."""
    table = {"s": _TIME, "B": _BYTES}.get(unit)
    if table is None:
        factor, prefix = next((step for step in _DECIMAL if abs(value) >= step[0]), (1.0, ""))
        return factor, f"{prefix}/s" if unit == "1/s" else f" {prefix}{unit}"
    if unit == "s" and abs(value) < 120:
        table = table[2:]  # up to two minutes are read in seconds
    factor, name = next((step for step in table if abs(value) >= step[0]), table[-1])
    return factor, f" {name}"


def ticks(low: float, high: float, unit: str, whole: bool = False) -> list[tuple[float, str]]:
    """Returns three to five round values from low to high for an axis, each with its words, all
    with one prefix.

    unit: as of `scaled`; without one the words are plain numbers. whole: of counts, which have
    no halves; they need a range of two or more.
    """
    factor, name = _scale(max(abs(low), abs(high)), unit) if unit else (1.0, "")
    low, high = low / factor, high / factor
    power = math.floor(math.log10(high - low))
    steps = (
        (size * 10.0**exponent, max(0, (size == 2.5) - exponent))
        for exponent in (power, power - 1)
        for size in (_WHOLE_STEPS if whole else _STEPS)
    )
    multiples, step, places = next(
        (multiples, step, places)
        for step, places in steps
        if len(multiples := range(math.ceil(low / step), math.floor(high / step) + 1)) >= _FEWEST_TICKS
    )
    values = [number * step for number in multiples]
    return [(value * factor, f"{value:.{places}f}{name}") for value in values]


def seconds(text: str) -> float:
    """Reads `90`, `90s`, `2m`, `500ms`, `1h` as seconds. Raises Misuse."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|)", text.strip())
    length = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0 < length <= MOST_S:
        shown = text if len(text) < 40 else f"{text[:40]}..."
        raise Misuse(f"{shown!r} is no length of time; write it as 90s, 2m or 1h, a year at most")
    return length
