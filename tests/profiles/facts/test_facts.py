"""Sets of moments against counting them one by one; who did what on the host; who launched what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hotlap.profiles.facts import host, intervals, launches, operators, timeline
from hotlap.profiles.facts.facts import Facts
from hotlap.profiles.findings import trust
from hotlap.profiles.tables import kineto

from .. import synthetic

PAIRS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=12)


def moments(pairs: list[tuple[int, int]]) -> set[int]:
    return {moment for start, length in pairs for moment in range(start, start + length)}


def joined(pairs: list[tuple[int, int]]) -> intervals.Intervals:
    start, length = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    return intervals.union(start, start + length)


@given(PAIRS, PAIRS)
def test_intervals_against_counting_every_moment(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> None:
    union, other = joined(a), joined(b)
    assert union.length == len(moments(a))
    assert intervals.both(union, other).length == len(moments(a) | moments(b))
    assert intervals.without(union, other) == len(moments(a) - moments(b))
    assert union.within(5, 20) == len({moment for moment in moments(a) if 5 <= moment < 20})
    holes = intervals.gaps(union)
    assert (holes.end > holes.start).all()
    if a:
        first, last = min(start for start, _ in a), max(start + length for start, length in a)
        assert holes.length == last - first - union.length


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=10),
    st.lists(st.integers(0, 60), max_size=10),
)
def test_the_innermost_span_against_trying_all(cuts: list[tuple[int, int]], asked: list[int]) -> None:
    """Nested spans: each cut halves one that is there."""
    spans = [(0, 64)]
    for which, place in cuts:
        start, end = spans[which % len(spans)]
        if end - start > 2:
            spans.append((start + 1 + place % (end - start - 2), end - 1))
    spans = [
        span
        for index, span in enumerate(spans)
        if all(
            (a[0] >= span[0] and a[1] <= span[1])
            or (a[0] <= span[0] and a[1] >= span[1])
            or a[1] < span[0]
            or a[0] > span[1]
            for a in spans[:index]
        )
    ]
    columns = {name: np.zeros(len(spans), np.int64) for name in ("name", "lane", "external", "shape", "cat")}
    table = kineto.Spans(
        start=np.array([a for a, _ in spans]), dur=np.array([b - a for a, b in spans]), **columns
    )
    moments_asked = np.array(asked, dtype=np.int64)
    innermost = operators.innermost(table, np.zeros(len(asked), np.int64), moments_asked)
    for moment, row in zip(asked, innermost.tolist(), strict=True):
        around = [(end - start, index) for index, (start, end) in enumerate(spans) if start <= moment <= end]
        assert (row == -1) == (not around)
        if around:
            assert spans[row][1] - spans[row][0] == min(around)[0]


def test_the_earliest_of_several_calls_and_none_for_an_orphan(tmp_path: Path) -> None:
    events = [
        synthetic.call("cudaLaunchKernel", 5, 1, 1),
        synthetic.call("cudaLaunchKernel", 2, 1, 1),
        synthetic.kernel("a", 9, 1, 1),
        synthetic.kernel("b", 11, 1, 2),
    ]
    trace = kineto.read(synthetic.written(tmp_path / "t.json", events))
    launched = launches.of(trace, trace.gpu)
    assert launched.call.tolist() == [1, -1]
    notes = trust.judge(Facts(trace)).notes
    assert any(line.startswith("1 of 2 GPU events (50% of their time) have no host call") for line in notes)


def test_idle_is_charged_by_its_cause(tmp_path: Path) -> None:
    events = [
        *synthetic.launched("first", 0, 10, 10, 1),
        *synthetic.launched("waited for the host", 25, 30, 10, 2),
        *synthetic.launched("short gap", 26, 50, 10, 3),
        *synthetic.launched("long gap", 27, 100, 10, 4),
        synthetic.kernel("orphan", 120, 10, 99),
    ]
    trace = kineto.read(synthetic.written(tmp_path / "t.json", events))
    line = timeline.of(trace)
    idle = launches.idle(line, launches.of(trace, line.gpu))
    assert {cause: idle.charged(cause) for cause in launches.CAUSES} == {
        "host_wait": (10_000, 1),
        "kernel_wait": (10_000, 1),
        "other": (40_000, 1),
        "unknown": (10_000, 1),
    }
    assert idle.before.tolist() == [5_000, 0, 0, 0]


def test_what_the_host_did_is_the_innermost_span(tmp_path: Path) -> None:
    events = [
        synthetic.step(1, 0, 100),
        synthetic.operator("outer", 10, 50),
        synthetic.operator("inner", 20, 10),
        synthetic.call("cudaStreamSynchronize", 40, 5),
        synthetic.event("python_function", "train.py(7): step", 70, 20),
    ]
    trace = kineto.read(synthetic.written(tmp_path / "t.json", events))
    doing = host.of(trace, 0)
    seen = [(doing.labels[label], ns // 1000) for label, ns in doing.during(0, 100_000)]
    assert seen == [
        (host.BETWEEN, 10),
        ("outer", 10),
        ("inner", 10),
        ("outer", 10),
        ("cudaStreamSynchronize in outer", 5),
        ("outer", 15),
        (host.BETWEEN, 10),
        ("train.py(7): step", 20),
        (host.BETWEEN, 10),
    ]


def test_several_devices_are_not_mixed(tmp_path: Path) -> None:
    other = {**synthetic.kernel("k", 500, 100), "args": {"device": 1, "stream": 7}}
    trace = kineto.read(
        synthetic.written(
            tmp_path / "t.json", [synthetic.kernel("k", 0, 10), synthetic.kernel("k", 20, 10), other]
        )
    )
    assert timeline.devices(trace) == [1, 0]  # of two events of the other one is less
    assert timeline.of(trace).window == 100_000 and timeline.of(trace, 0).window == 30_000
    notes = " ".join(trust.judge(Facts(trace)).notes)
    assert "2 devices: figures are of device 1, busy for 100 us; device 0 20.0 us" in notes
