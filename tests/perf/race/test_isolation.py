"""Whole runs with real processes: no workload reaches another, a killed server takes no other race
with it, a model's daemons end with its race, and a signal keeps what was measured.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from hotlap.perf.lookup.cases import expand
from hotlap.perf.machine import survey
from hotlap.perf.measure import rundir
from hotlap.perf.measure.journal import Progress
from hotlap.perf.measure.measure import measure
from hotlap.perf.race.entrant import Entrant
from hotlap.perf.race.leavings import VARIABLE
from hotlap.perf.terms.case import Plan
from hotlap.perf.terms.result import Result, Results, read

QUICK = Plan(budget_s=60, looks=(2,), rounds=4, tail_s=0.02, timeout_s=60, threads=2)
MODEL = """
import os, pathlib, subprocess, sys
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)), torch.randn(1, 64)
"""
# What its import finds, a line for each process that imports it.
WITNESS = """
import gc, sys
with open("witness.txt", "a") as file:
    print(torch.get_num_threads(), torch.backends.mkldnn.enabled,
          torch.are_deterministic_algorithms_enabled(), len(nn.modules.module._global_forward_hooks),
          gc.isenabled(), sys.getswitchinterval(),
          sorted(os.sched_getaffinity(0)), sorted(set(sys.modules) & {"poison", "witness"}), file=file)
"""
POISON = """
import gc, sys
torch.set_num_threads(1)
torch.backends.mkldnn.enabled = False
torch.use_deterministic_algorithms(True)
nn.modules.module.register_module_forward_hook(lambda *_: None)
gc.disable()
sys.setswitchinterval(1.0)
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
"""
DAEMON = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", "a daemon"])
            os._exit(0)

    def forward(self, x):
        return self.layer(x)

def make():
    return Net(), torch.randn(1, 64)
"""
MODULES = {
    "tame": MODEL,
    "witness": MODEL + WITNESS,
    "poison": MODEL + POISON,
    "daemon": MODEL + DAEMON,
}

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("modules")]


@pytest.fixture(scope="module")
def modules(planted: Path) -> None:
    for name, text in MODULES.items():
        (planted / f"{name}.py").write_text(text)


def run(names: Sequence[str], progress: Progress | None = None) -> dict[str, Result]:
    """Results of eager by the workload's module, all of one run."""
    cases = expand([f"{name}:make" for name in names], ["eager"])
    here = survey.collect(QUICK.threads, "keep")
    folder = rundir.RunFolder(None, "test", here, cases)
    try:
        results = measure(cases, folder, QUICK, here.key, progress or Progress())
    finally:
        folder.close()
    assert ours() == []
    return {
        result.case.workload.partition(":")[0]: result for result in results if result.case.backend == "eager"
    }


def ours(pid: int | None = None) -> list[psutil.Process]:
    """The workers, and what they started, of this process or another."""
    return [
        process
        for process in psutil.process_iter(["environ", "cmdline", "status"])
        if f"-{pid or os.getpid()}-" in (process.info["environ"] or {}).get(VARIABLE, "")
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def commands(pid: int) -> list[list[str]]:
    """The command lines of what is `ours` of another process."""
    return [process.info["cmdline"] or [] for process in ours(pid)]


def test_no_workload_of_a_run_changes_what_another_finds(planted: Path) -> None:
    results = run(["poison", "witness"])
    assert all(result.status in ("ok", "noisy") for result in results.values())
    first = (planted / "witness.txt").read_text().splitlines()
    (planted / "witness.txt").unlink()
    run(["witness"])
    assert set(first) == set((planted / "witness.txt").read_text().splitlines())
    assert len(set(first)) == 1 and first[0].endswith("['witness']"), "a server and a fresh worker alike"


class KillServers(Progress):
    """Kills all fork servers once, at the first moment of a kind: no other worker is a child of
    ours then.
    """

    def __init__(self, moment: str) -> None:
        self.moment = moment
        self.killed = 0

    def race(self, group: str, entrants: Sequence[Entrant], event: str) -> None:
        if self.moment == event and not self.killed:
            self.kill()

    def finished(self, group: str, results: Sequence[Result]) -> None:
        if self.moment == "between" and not self.killed:
            self.kill()

    def kill(self) -> None:
        servers = [
            child for child in psutil.Process().children() if "hotlap.perf.race.worker" in child.cmdline()
        ]
        self.killed = len(servers)
        for server in servers:
            server.kill()
        psutil.wait_procs(servers, timeout=5)


@pytest.mark.parametrize("moment", ["between", "block 2"])
def test_a_killed_server_takes_no_later_block_or_race_with_it(moment: str) -> None:
    killing = KillServers(moment)
    results = run(["tame", "witness"], killing)
    assert killing.killed
    for result in results.values():
        assert result.status in ("ok", "noisy"), result.reason
        assert len(result.metrics["latency"].blocks) == 2


def test_what_a_model_starts_ends_with_its_race_and_is_a_warning() -> None:
    results = run(["daemon", "tame"])
    (warning,) = (line for line in results["daemon"].warnings if "processes of its own" in line)
    assert "python" in warning and "they were ended" in warning
    assert not any("processes of its own" in line for line in results["tame"].warnings)
    assert not any(
        "a daemon" in process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"]
    )


def status(results: Results) -> dict[str, str]:
    return {result.case.backend: str(result.reason) for result in results.results}


def measured(file: Path) -> bool:
    """Whether a block is in the file."""
    return file.exists() and any("latency" in result.metrics for result in read(file).results)


def building(file: Path) -> bool:
    """Whether the first case is being built."""
    return any((file.parent / "log").glob("server-*.txt"))


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[str], Path]]]:
    """Starts hotlap run with a model that starts a daemon; returns it and its results file."""
    running: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], Path]:
        arguments = ["daemon:make", "--backends", "eager", "--budget", "60s", "--out", str(tmp_path / "out")]
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "hotlap.perf.cli", "run", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return running[-1], tmp_path / "out" / "results.json"

    yield start
    for process in running:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize(
    ("number", "moment", "code"),
    [
        (signal.SIGTERM, measured, 143),
        (signal.SIGTERM, building, 143),
        (signal.SIGHUP, measured, 129),
        (signal.SIGINT, measured, 130),
    ],
)
def test_a_signal_keeps_what_was_measured_and_leaves_no_process(
    started: Callable[[], tuple[subprocess.Popen[str], Path]],
    number: signal.Signals,
    moment: Callable[[Path], bool],
    code: int,
) -> None:
    process, file = started()
    wait_until(lambda: moment(file) or process.poll() is not None)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=30)
    assert process.returncode == code, printed
    # A worker whose start was cut short sees within a second that there is nobody to serve.
    wait_until(lambda: commands(process.pid) == [], within_s=5)
    own = f"hotlap-*-{process.pid}-*"
    wait_until(lambda: [*Path(tempfile.gettempdir()).glob(own)] == [], within_s=5)
    results = read(file)
    assert {result.reason.code for result in results.results if result.reason} == {"interrupted"}
    assert measured(file) == (moment is measured)


def test_the_next_run_ends_what_a_killed_one_left(
    started: Callable[[], tuple[subprocess.Popen[str], Path]], tmp_path: Path
) -> None:
    process, file = started()
    wait_until(lambda: measured(file))
    process.kill()
    process.communicate()
    wait_until(lambda: not any("hotlap.perf.race.worker" in command for command in commands(process.pid)))
    assert any("a daemon" in command for command in commands(process.pid)), "nobody could end it"
    run(["tame"])
    assert ours(process.pid) == []


def wait_until(holds: Callable[[], bool], within_s: float = 90) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
