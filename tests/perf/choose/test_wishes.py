"""Goals and bounds, as a person writes them, and when a bound holds."""

from __future__ import annotations

import pytest

from hotlap.perf.choose import wishes
from hotlap.perf.terms.case import Case, Plan
from hotlap.perf.terms.reasons import Misuse
from hotlap.perf.terms.result import Deviation, Distance, Placement, Result, Samples, Task


def result(**fields: object) -> Result:
    values = {"metrics": {"latency": Samples("s", "lower", ((1e-3,) * 3, (1.02e-3,) * 3, (0.98e-3,) * 3))}}
    return Result(Case("net", "onnxruntime"), "race", Plan(), "ok", **{**values, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("p99<=20ms", "p99", 0.02),
        ("p99.9 <= 1s", "p99.9", 1.0),
        ("memory<=500MB", "memory", 5e8),
        ("memory <= 2GiB", "memory", 2 * 2**30),
        ("drop<=0.5%", "drop", 0.005),
        ("cold_start<=2s", "cold start", 2.0),
        ("throughput>=100/s", "throughput", 100.0),
        ("deviation<=0.5", "deviation", 0.5),
    ],
)
def test_bounds_are_read(text: str, name: str, value: float) -> None:
    read = wishes.bound(text)
    assert (read.quantity.name, read.value) == (name, pytest.approx(value))
    assert str(read) == "".join(text.split())


@pytest.mark.parametrize(
    ("goal", "bounds", "words"),
    [
        ("latency", "", "expected min or max and a quantity"),
        ("max latency", "", "of latency the best is the minimum"),
        ("min latenzy", "", "did you mean latency"),
        ("min drop", "", "unknown quantity"),
        ("min latency", "p99<20ms", "expected NAME<=VALUE"),
        ("min latency", "pp99<=20ms", "did you mean p99"),
        ("min latency", "p99<=20MB", "MB is no unit of p99; use s, ms, us"),
        ("min latency", "p99<=20", "a number alone is no unit of p99"),
        ("min latency", "memory>=20MB", "memory is bounded by <="),
        ("min latency", "throughput<=20/s", "throughput is bounded by >="),
        ("min latency", "p99<=1.2.3ms", "1.2.3 is no number"),
    ],
)
def test_what_cannot_be_read_is_said(goal: str, bounds: str, words: str) -> None:
    with pytest.raises(Misuse) as error:
        wishes.parse(goal, bounds)
    assert words in str(error.value)


def test_a_bound_holds_where_the_whole_interval_does() -> None:
    latency = wishes.bound("latency<=1.2ms"), wishes.bound("latency<=1.01ms"), wishes.bound("latency<=0.5ms")
    assert [bound.met(result()) for bound in latency] == [True, None, False]


def test_a_percentile_needs_its_calls_and_none_above() -> None:
    calls = tuple(1e-3 + index * 1e-9 for index in range(400))
    samples = Samples("s", "lower", (calls,), details={"p99": 1.0e-3, "effective_n": 400.0})
    few = Samples("s", "lower", (calls[:50],), details={"effective_n": 50.0})
    bound = wishes.bound("p99<=1.1ms")
    assert bound.met(result(metrics={"call_latency": samples})) is True
    assert bound.met(result(metrics={"call_latency": few})) is None
    above = Samples("s", "lower", ((*calls, 5e-3),), details={"p99": 1.0e-3, "effective_n": 400.0})
    assert bound.met(result(metrics={"call_latency": above})) is None
    assert wishes.bound("p99<=0.5ms").met(result(metrics={"call_latency": samples})) is False


def test_drop_deviation_and_size_are_what_the_result_says() -> None:
    distance = Distance(1e-4, 1e-4, 4e-4, 2.0, 0.0, 1.0, 0, 100)
    deviation = Deviation({"real": distance}, Task("accuracy", "higher", 0.97, 0.98, 0.02))
    answer = result(deviation=deviation, placement=Placement("cpu", {"cpu": 1}, {"artefact_bytes": 10_000}))
    assert wishes.bound("drop<=1.1%").met(answer) is True
    assert wishes.bound("drop<=0.9%").met(answer) is False
    assert wishes.bound("deviation<=0.3").met(answer) is True
    assert wishes.bound("size<=5kB").met(answer) is False
    assert wishes.bound("drop<=1%").met(result()) is None
