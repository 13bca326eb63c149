"""What `hotlap run` says where it is asked to end: real processes and real signals."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hotlap.perf.terms.reasons import Misuse
from hotlap.perf.terms.result import Results, read

# Over 20 s on two quiet cores.
pytestmark = pytest.mark.slow

PATIENCE_S = 120.0


def begun(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Starts hotlap run of two cases in this folder's `out`."""
    command = [sys.executable, "-m", "hotlap.perf.cli", "run", "planted.workloads:tiny"]
    command += ["--backends", "eager,null[takes:1ms]", "--out", "out", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def stopped(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Sends the signal; returns the exit status and what came to stderr."""
    process.send_signal(number)
    errors = process.communicate(timeout=PATIENCE_S)[1]
    return process.returncode, errors


def wait(process: subprocess.Popen[str], file: Path, reached: Callable[[Results], bool]) -> None:
    """Waits until the results file is so far; the process must not end before."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "ended before it could be stopped"
        try:
            if reached(read(file)):
                return
        except Misuse:
            pass
        time.sleep(0.05)
    raise TimeoutError(file)


def in_part(results: Results) -> bool:
    return any("latency" in result.metrics for result in results.results)


def test_ctrl_c_says_what_is_kept_and_the_command_that_goes_on(planted: Path) -> None:
    process = begun(planted, "--budget", "20s")
    wait(process, planted / "out" / "results.json", in_part)
    assert stopped(process, signal.SIGINT) == (
        130,
        "\nhotlap: stopped; 0 of 2 cases finished, 2 measured in part, in out/results.json;"
        " go on with: hotlap run --resume out --out out --budget 20s\n",
    )


def test_what_was_stopped_before_a_block_says_so_and_its_command_goes_on(planted: Path) -> None:
    process = begun(planted, "--out", "early", "--budget", "1s", "--threads", "1")
    wait(process, planted / "early" / "results.json", lambda results: True)
    status, errors = stopped(process, signal.SIGTERM)
    assert status == 143
    first, _, command = errors.strip().partition("; go on with: ")
    assert first == "hotlap: stopped before the first block was measured"
    assert command == "hotlap run --resume early --out early --budget 1s --threads 1"
    words = [sys.executable, "-m", "hotlap.perf.cli", *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=planted, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    results = read(planted / "early" / "results.json")
    assert {result.plan.budget_s for result in results.results} == {1.0}
    assert not any(result.reason and result.reason.code == "interrupted" for result in results.results)
