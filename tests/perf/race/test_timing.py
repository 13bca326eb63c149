"""The timing loop with steps and clocks whose times are known."""

from __future__ import annotations

import itertools
import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hotlap.perf.race import timing
from hotlap.perf.terms.contract import Step

Clock = Callable[[Step, Sequence[Any]], tuple[float, Any]]


def step(call: Callable[[Any], Any] = lambda inputs: inputs, **more: Any) -> Step:
    return Step(call=call, place=lambda arrays: arrays, fetch=lambda outputs: outputs, **more)


def taking(lengths: Iterable[float]) -> tuple[Clock, list[int]]:
    """A clock on which a feed takes its number of calls times the next length, and the lengths of
    the feeds it saw.
    """
    left, feeds = iter(lengths), list[int]()

    def clock(step: Step, feed: Sequence[Any]) -> tuple[float, Any]:
        feeds.append(len(feed))
        return len(feed) * next(left), f"outputs of {feed[-1]}"

    return clock, feeds


def rotate(count: int) -> list[Any]:
    return list(range(count))


def warm(
    lengths: Iterable[float], sample_s: float = 0.005, longest_s: float = 0.05, cap_s: float = 9.0
) -> tuple[timing.WarmUp, list[int]]:
    clock, feeds = taking(lengths)
    return timing.warm_up(step(), rotate, clock, sample_s, longest_s, cap_s), feeds


def test_the_host_clock_calls_once_for_each_input_and_synchronises_once_at_the_end() -> None:
    events: list[str] = []

    def call(inputs: str) -> str:
        events.append(inputs)
        return inputs.upper()

    spent, outputs = timing.host_clock(
        step(call, synchronize=lambda: events.append("synchronised")), ["a", "b", "c"]
    )
    assert events == ["a", "b", "c", "synchronised"]
    assert outputs == "C"
    assert 0 < spent < 1


def test_the_host_clock_includes_the_synchronisation() -> None:
    spent, _ = timing.host_clock(
        step(lambda inputs: time.sleep(0.01), synchronize=lambda: time.sleep(0.02)), [0, 1]
    )
    assert 0.04 <= spent < 0.4


def test_a_turn_keeps_its_first_call_apart() -> None:
    clock, feeds = taking([100.0, 0.25])
    turn, outputs = timing.take_turn(step(), ["first", "a", "b", "c"], clock)
    assert (turn.first_s, turn.call_s, turn.calls) == (100.0, 0.25, 3)
    assert feeds == [1, 3]
    assert outputs == "outputs of c"


def test_a_turn_counts_cpu_time_a_call_of_the_timed_calls_only() -> None:
    def spin(seconds: float) -> None:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    turn, _ = timing.take_turn(step(spin), [0.2, 0.02, 0.02], timing.host_clock)
    assert turn.cpu_s == pytest.approx(0.02, rel=0.25)
    assert turn.call_s >= 0.02
    slept, _ = timing.take_turn(step(time.sleep), [0.0, 0.03], timing.host_clock)
    assert slept.cpu_s < 0.01 < 0.03 <= slept.call_s


def test_a_turn_counts_switches_and_faults_between_the_beginning_and_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = iter(
        [SimpleNamespace(ru_nivcsw=100, ru_minflt=1000), SimpleNamespace(ru_nivcsw=103, ru_minflt=1007)]
    )
    monkeypatch.setattr("resource.getrusage", lambda who: next(counts))
    turn, _ = timing.take_turn(step(), [0, 1], timing.host_clock)
    assert (turn.switches, turn.faults) == (3, 7)


def test_a_turn_counts_page_faults_of_its_timed_calls() -> None:
    def touch(pages: int) -> None:
        with mmap.mmap(-1, max(1, pages) * mmap.PAGESIZE) as fresh:
            for page in range(pages):
                fresh[page * mmap.PAGESIZE] = 1

    turn, _ = timing.take_turn(step(touch), [3000, 500, 500], timing.host_clock)
    assert 1000 <= turn.faults < 2000


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
@pytest.mark.skipif(not Path("/proc/self/sched").exists(), reason="needs /proc/self/sched")
def test_a_turn_counts_moves_between_cores() -> None:
    cores = sorted(os.sched_getaffinity(0))

    def move(core: int) -> None:
        os.sched_setaffinity(0, {core})

    try:
        turn, _ = timing.take_turn(step(move), [cores[0], cores[1], cores[0], cores[1]], timing.host_clock)
    finally:
        os.sched_setaffinity(0, cores)
    assert turn.migrations == 3


@pytest.mark.parametrize(
    ("samples", "fine"),
    [
        ([1.0] * 24, True),
        ([1.0] * 8 + [1.009] * 16, True),
        ([1.0] * 8 + [1.02] * 16, False),
        ([1.0] * 16 + [0.98] * 8, False),
        ([0.8, 1.2] * 12, True),
        ([0.8, 1.2] * 8 + [1.3, 1.7] * 4, True),
        ([0.8, 1.2] * 8 + [1.6, 2.0] * 4, False),
        ([float(at) for at in range(1, 25)], False),
        ([1.0] * 7 + [50.0] + [1.0] * 16, True),
    ],
)
def test_windows_agree_within_1_percent_or_their_spread(samples: list[float], fine: bool) -> None:
    assert timing.agree(samples) == fine


@pytest.mark.parametrize(
    ("call_s", "sample_s", "longest_s", "calls"),
    [
        (0.001, 0.005, 0.05, range(5, 51)),
        (1e-6, 0.005, 0.05, range(5000, 50_001)),
        (0.01, 0.005, 0.05, range(1, 2)),
        (1.0, 0.005, 0.05, range(1, 2)),
        (0.0001, 0.0, 0.05, range(10, 501)),
        (0.001, 0.2, 0.02, range(20, 24)),
    ],
)
def test_a_sample_is_long_enough_and_no_longer_than_asked(
    call_s: float, sample_s: float, longest_s: float, calls: range
) -> None:
    warmed, feeds = warm(itertools.repeat(call_s), sample_s, longest_s)
    assert warmed.calls in calls
    assert warmed.steady
    assert warmed.call_s == pytest.approx(call_s)
    assert feeds[0] == 3
    assert feeds[-24:] == [warmed.calls] * 24
    assert len(feeds) <= 24 + 12


def test_one_call_that_seems_to_take_no_time_makes_no_endless_sample() -> None:
    warmed, _ = warm([0.001, 1e-12, *itertools.repeat(0.001, 100)])
    assert warmed.calls == 10


def test_constant_samples_are_steady_after_three_windows() -> None:
    warmed, feeds = warm(itertools.repeat(0.01))
    assert warmed.steady
    assert 0 < warmed.spent_s < 5
    assert feeds == [3, *[1] * 5, *[1] * 24]


def test_a_call_that_waited_for_its_core_does_not_decide_the_length_of_a_sample() -> None:
    warmed, _ = warm([0.001, 0.02, *itertools.repeat(0.001, 100)])
    assert warmed.calls in range(5, 11)


def test_samples_that_settle_are_waited_for() -> None:
    warmed, feeds = warm([*(1 + 1 / at for at in range(1, 43)), *itertools.repeat(1.0, 100)])
    assert warmed.steady
    assert 2 + 42 <= len(feeds) <= 6 + 72
    assert warmed.call_s == pytest.approx(1.0, rel=0.05)


def test_samples_that_drift_for_ever_end_at_the_cap_and_are_not_steady() -> None:
    start = time.perf_counter()
    warmed, _ = warm((0.01 * 1.05 ** (at % 10_000) for at in itertools.count()), cap_s=0.05)
    assert not warmed.steady
    assert 0.05 <= warmed.spent_s <= time.perf_counter() - start < 2


def test_at_a_cap_of_nothing_six_windows_are_seen_all_the_same() -> None:
    warmed, feeds = warm((1.05**at for at in itertools.count()), cap_s=0.0)
    assert not warmed.steady
    assert feeds == [3, 1, *[1] * 48]


EVENTS = """
import json, time
import torch
from hotlap.perf.race import timing
from hotlap.perf.terms.contract import Step

order = []
class Event:  # stands in for torch.cuda.Event: host time, readable only after a synchronisation, as CUDA's is
    def __init__(self, enable_timing):
        assert enable_timing
    def record(self):
        self.at = time.perf_counter()
        order.append("record")
    def elapsed_time(self, end):
        assert order[-1] == "synchronize", order
        return (end.at - self.at) * 1e3
torch.cuda.Event = Event
call = lambda inputs: (time.sleep(inputs), order.append("call"))
step = Step(
    call,
    place=None,
    fetch=None,
    synchronize=lambda: order.append("synchronize"),
    between=lambda: order.append("between"),
)
spent, outputs = timing.event_clock(step, [0.01, 0.02])
print(json.dumps([spent, order]))
"""


def test_the_event_clock_sums_the_time_between_the_events_of_each_call() -> None:
    """A stand-in for CUDA's events in a process of its own: the arithmetic and the order are
    exercised, no device is.
    """
    done = subprocess.run(
        [sys.executable, "-c", EVENTS], capture_output=True, text=True, check=True, timeout=120
    )
    spent, order = json.loads(done.stdout)
    assert 0.03 <= spent < 0.3
    assert order == ["record"] * 4 + ["between", "record", "call", "record"] * 2 + ["synchronize"], (
        "an event is made when it is first recorded"
    )
