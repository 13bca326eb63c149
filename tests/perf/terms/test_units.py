"""Scaling for print: known answers, and the printed text read back."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hotlap.perf.terms import units
from hotlap.perf.terms.reasons import Misuse

FACTORS = {
    "s": {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0},
    "B": {"B": 1.0, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40},
    "FLOP/s": {"FLOP/s": 1.0, "kFLOP/s": 1e3, "MFLOP/s": 1e6, "GFLOP/s": 1e9, "TFLOP/s": 1e12},
}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123, "s", "12.3 ms"),
        (1.5e-6, "s", "1.50 us"),
        (4e-10, "s", "0.400 ns"),
        (90.0, "s", "90.0 s"),
        (150.0, "s", "2.50 min"),
        (7200.0, "s", "2.00 h"),
        (1.0, "s", "1.00 s"),
        (120.0, "s", "2.00 min"),
        (119.9, "s", "120 s"),
        (0.0, "s", "0 ns"),
        (512.0, "B", "512 B"),
        (1024.0, "B", "1.00 KiB"),
        (1536.0, "B", "1.50 KiB"),
        (2.0**21, "B", "2.00 MiB"),
        (3 * 2**30, "B", "3.00 GiB"),
        (2.0**40, "B", "1.00 TiB"),
        (1e3, "FLOP/s", "1.00 kFLOP/s"),
        (2.5e12, "FLOP/s", "2.50 TFLOP/s"),
        (0.025, "J", "0.0250 J"),
        (1234.0, "J", "1.23 kJ"),
        (12_345.0, "1/s", "12.3k/s"),
        (0.5, "1/s", "0.500/s"),
        (-0.002, "s", "-2.00 ms"),
        (math.inf, "s", "inf s"),
        (math.nan, "B", "nan B"),
    ],
)
def test_scaled(value: float, unit: str, text: str) -> None:
    assert units.scaled(value, unit) == text


@given(st.sampled_from(sorted(FACTORS)), st.floats(1e-8, 1e14))
@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_a_scaled_quantity_reads_back(unit: str, value: float) -> None:
    number, name = units.scaled(value, unit).split(" ")
    assert "e" not in number
    assert float(number) * FACTORS[unit][name] == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123, "0.0123"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (1234.0, "1230"),
        (-1.5, "-1.50"),
        (0, "0"),
        (0.9996, "1.00"),
        (9.996, "10.0"),
    ],
)
def test_significant_digits(value: float, text: str) -> None:
    assert units.significant(value) == text


@given(st.floats(1e-6, 99.4), st.integers(2, 6))
@example(0.9961, 2)
@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_as_many_digits_as_asked(value: float, digits: int) -> None:
    text = units.significant(value, digits)
    assert float(text) == pytest.approx(value, rel=0.51 * 10 ** (1 - digits))
    assert len(text.replace(".", "").lstrip("0")) == digits


@pytest.mark.parametrize(
    ("text", "value"),
    [("90", 90), ("90s", 90), (" 2m ", 120), ("2min", 120), ("500ms", 0.5), ("1h", 3600), ("1.5 s", 1.5)],
)
def test_lengths_of_time(text: str, value: float) -> None:
    assert units.seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "0", "0s", "-1s", "5x", "1e3", "nan", "inf", "s", "1m30s"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(Misuse, match="is no length of time; write it as 90s, 2m or 1h"):
        units.seconds(text)


@pytest.mark.parametrize(
    ("low", "high", "unit", "texts"),
    [
        (0.94e-3, 1.19e-3, "s", ["0.95 ms", "1.00 ms", "1.05 ms", "1.10 ms", "1.15 ms"]),
        (100.0, 500.0, "s", ["2.5 min", "5.0 min", "7.5 min"]),
        (2.9 * 2**20, 4.1 * 2**20, "B", ["3.0 MiB", "3.5 MiB", "4.0 MiB"]),
        (11_900.0, 12_300.0, "1/s", ["11.9k/s", "12.0k/s", "12.1k/s", "12.2k/s", "12.3k/s"]),
        (0.98, 1.21, "", ["1.0", "1.1", "1.2"]),
    ],
)
def test_ticks(low: float, high: float, unit: str, texts: list[str]) -> None:
    assert [text for _, text in units.ticks(low, high, unit)] == texts


@given(st.sampled_from(["", *units.UNITS]), st.floats(1e-12, 1e15), st.floats(1e-4, 1e6))
def test_ticks_are_few_and_within_the_range_and_differ(unit: str, low: float, more: float) -> None:
    high = low * (1 + more)
    ticks = units.ticks(low, high, unit)
    assert 3 <= len(ticks) <= 5 and len({text for _, text in ticks}) == len(ticks)
    assert all(low * (1 - 1e-9) <= value <= high * (1 + 1e-9) for value, _ in ticks)


@given(st.integers(0, 10**9), st.integers(2, 10**9))
def test_ticks_of_counts_have_no_halves(low: int, more: int) -> None:
    ticks = units.ticks(float(low), float(low + more), "", whole=True)
    assert 3 <= len(ticks) <= 5 and all(value == int(text) for value, text in ticks)
