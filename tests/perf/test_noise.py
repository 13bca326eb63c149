"""The machine's noise: known samples give known figures, and what can be named is named."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterable
from types import SimpleNamespace

import psutil
import pytest

from hotlap.perf import noise, race

NOTHING = "no busy process, no steal and few switches"
SPIN = "import time\nend = time.perf_counter() + 20\nwhile time.perf_counter() < end: pass"


def test_a_busy_process_is_named() -> None:
    with subprocess.Popen([sys.executable, "-c", SPIN]) as busy:
        try:
            heard = noise.listen(1.0)
        finally:
            busy.kill()
    (cause,) = (cause for cause in heard.causes if cause.startswith(f"process {busy.pid} ("))
    assert "% of a core: end it or wait for it" in cause
    assert heard.tail >= 1


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other process, no steal, no switch."""
    monkeypatch.setattr(psutil, "process_iter", lambda: iter([]))
    monkeypatch.setattr(race, "steal_share", lambda before, after: 0.0)
    monkeypatch.setattr("resource.getrusage", lambda who: SimpleNamespace(ru_nivcsw=0))


def samples(monkeypatch: pytest.MonkeyPatch, lengths: Iterable[float]) -> None:
    """Makes each call of the loop take a stated time on a clock that stands still otherwise."""
    now, left = [0.0], iter(lengths)

    def loop(count: int) -> int:
        now[0] += next(left)
        return 0

    monkeypatch.setattr(noise, "_loop", loop)
    monkeypatch.setattr(noise, "time", SimpleNamespace(perf_counter=lambda: now[0]))


@pytest.mark.usefixtures("alone")
def test_spread_and_tail_of_known_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call to calibrate; then 100 samples with median 1 and median absolute deviation 0.1, of which the slowest are 3."""
    samples(monkeypatch, [1.0, *[0.9, 1.0, 1.1, 0.9, 1.1] * 18, *[3.0] * 10])
    heard = noise.listen(90.0 + 30.0 - 0.05)
    assert heard.spread == pytest.approx(0.14826)
    assert heard.tail == pytest.approx(3.0)
    assert heard.causes == (f"{NOTHING}: what is left is clock frequency, shared caches and memory of neighbours",)


@pytest.mark.usefixtures("alone")
def test_constant_samples_on_a_machine_of_its_own_are_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    samples(monkeypatch, itertools.repeat(0.01))
    heard = noise.listen(1.0)
    assert (heard.spread, heard.tail) == (pytest.approx(0, abs=1e-9), pytest.approx(1))
    assert heard.causes == (f"{NOTHING}: quiet",)


@pytest.mark.usefixtures("alone")
def test_steal_and_switches_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    switches = itertools.count(100, 20)
    monkeypatch.setattr(race, "steal_share", lambda before, after: 0.031)
    monkeypatch.setattr("resource.getrusage", lambda who: SimpleNamespace(ru_nivcsw=next(switches)))
    samples(monkeypatch, itertools.repeat(0.25))
    first, second = noise.listen(2.0).causes
    assert first.startswith("the host took 3.1% of this virtual machine's time (steal)")
    assert second == "10 involuntary context switches a second: more runnable threads than cores"
