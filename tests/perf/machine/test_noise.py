"""The machine's noise: known samples give known figures, and what can be named is named."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from hotlap.perf import cli
from hotlap.perf.machine import control_groups, cores, noise

NOTHING = "no busy process, no steal and few switches"
SPIN = "import time\nend = time.perf_counter() + 20\nwhile time.perf_counter() < end: pass"
QUIET = noise.Levels(0.001, 0.001, 0.001, 0.0, 1.0)


def core(number: int, centre_s: float = 0.01, clock_hz: tuple[float, float] | None = None) -> noise.Core:
    return noise.Core(number, centre_s, 0.0, clock_hz)


def test_a_busy_process_is_named_and_the_cores_are_given_back() -> None:
    ours = os.sched_getaffinity(0)
    with subprocess.Popen([sys.executable, "-c", SPIN]) as busy:
        try:
            heard = noise.listen(1.0)
        finally:
            busy.kill()
    (cause,) = (cause for cause in heard.causes if cause.startswith(f"process {busy.pid} ("))
    assert "% of a core: end it or wait for it" in cause
    assert heard.levels.tail >= 1 and {core.number for core in heard.cores} == ours == os.sched_getaffinity(0)
    assert all(core.centre_s > 0 for core in heard.cores)


def test_each_level_is_found_as_it_was_made() -> None:
    rng = random.Random(1)

    def visit(centre: float) -> list[float]:
        return [math.exp(rng.gauss(centre, 0.01)) for _ in range(noise.VISIT)]

    visits = {}
    for number in range(200):
        middle = rng.gauss(0, 0.05)
        visits[number] = [visit(rng.gauss(middle, 0.02)) for _ in range(20)]
    levels = noise.levels(visits)
    assert levels.samples == pytest.approx(0.01, rel=0.05)
    assert levels.visits == pytest.approx(0.02, rel=0.1)
    assert levels.cores == pytest.approx(0.05, rel=0.1)
    # of independent samples about their own mean
    assert levels.correlation == pytest.approx(-1 / noise.VISIT, abs=0.02)
    assert noise.levels({0: [[1.0] * 7 + [3.0]] * 3}) == noise.Levels(
        0.0, 0.0, 0.0, pytest.approx(-1 / 56, abs=0.15), 3.0
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steal": 0.031}, "the host took 3.1% of this virtual machine's time (steal)"),
        ({"switches": 10.2}, "10 involuntary context switches a second: more runnable threads than cores"),
        ({"stops": 4}, "the CPU quota of the control group stopped this process 4 times"),
        ({"each": [core(0), core(1, 0.012)]}, "core 1 took 20% longer than core 0"),
        (
            {"each": [core(0, clock_hz=(2e9, 3.5e9)), core(1, clock_hz=(3e9, 3e9))]},
            "the clock moved: core 0 2.00 to 3.50 GHz",
        ),
        ({"busy": {"process 7 (make)": 0.4}}, "process 7 (make) used 40% of a core"),
        ({}, f"{NOTHING}: quiet"),
        ({"seen": QUIET._replace(samples=0.05)}, f"{NOTHING}: what is left is clock frequency"),
    ],
)
def test_what_disturbs_is_named_and_nothing_else(
    changes: dict, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("governor", "boosts", "shared"):
        monkeypatch.setattr(cores, name, lambda *_: "")
    (line,) = noise.causes(
        **{
            "seen": QUIET,
            "each": [core(0), core(1)],
            "busy": {},
            "steal": 0.0,
            "switches": 0.0,
            "stops": 0,
            **changes,
        }
    )
    assert line.startswith(words)


def test_what_the_kernel_says_of_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree as Linux has it (cpufreq.rst, cputopology.rst, cgroup-v2.rst, proc(5))."""

    def put(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text + "\n")

    assert (
        cores.clock_hz(0, tmp_path) is None
        and cores.boosts(tmp_path) is None
        and control_groups.throttled(tmp_path) == 0
    )
    put("proc/cpuinfo", "processor\t: 0\ncpu MHz\t\t: 2596.140\n\nprocessor\t: 1\ncpu MHz\t\t: 1200.000\n")
    assert (cores.clock_hz(0, tmp_path), cores.clock_hz(1, tmp_path)) == (2596.14e6, 1200e6)
    put("sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "3400000")
    put("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave")
    assert (
        cores.clock_hz(1, tmp_path) == 3.4e9
        and cores.governor(1, tmp_path) == "powersave"
        and cores.governor(0, tmp_path) == ""
    )
    put("sys/devices/system/cpu/intel_pstate/no_turbo", "0")
    assert cores.boosts(tmp_path) is True
    put("sys/devices/system/cpu/cpufreq/boost", "0")
    assert cores.boosts(tmp_path) is False
    for number, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        put(f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list", siblings)
    assert cores.shared([0, 1, 2, 3], tmp_path) == [(0, 2), (1, 3)] and cores.shared([0, 1], tmp_path) == []
    put("sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0-2")
    assert cores.shared([0, 1, 2], tmp_path)[0] == (0, 1, 2)
    put("proc/self/cgroup", "0::/job")
    put("sys/fs/cgroup/cgroup.procs", "")
    put("sys/fs/cgroup/job/cpu.stat", "usage_usec 5\nnr_periods 9\nnr_throttled 4")
    assert control_groups.throttled(tmp_path) == 4
    put(
        "proc/stat",
        "cpu  10 0 10 70 0 0 0 10 0 0\ncpu0 5 0 5 40 0 0 0 0 0 0\ncpu1 5 0 5 30 0 0 0 10 0 0\nintr 1",
    )
    before = cores.ticks(tmp_path)
    put(
        "proc/stat",
        "cpu  20 0 10 70 0 0 0 30 0 0\ncpu0 5 0 5 40 0 0 0 0 0 0\ncpu1 15 0 5 30 0 0 0 30 0 0\nintr 1",
    )
    after = cores.ticks(tmp_path)
    assert (
        cores.stolen(before[None], after[None]) == pytest.approx(20 / 30)
        and cores.stolen(before[0], after[0]) == 0
    )


def test_the_command_listens_on_a_machine_without_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOTLAP_RUNS", str(tmp_path / "runs"))
    assert cli.status(["noise", "--listen", "0.2"]) == 0
    printed = capsys.readouterr().out
    assert "from core to core" in printed and "no run yet" in printed
    assert cli.status(["noise", "--listen", "0"]) == 2
    assert cli.status(["noise", "--budget", "soon"]) == 2
