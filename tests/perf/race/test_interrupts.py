"""Signals at a command: the first is a KeyboardInterrupt, what follows does not disturb its end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

# Prints what happens to it, and its clean-up takes a while; run as the command line's main runs it.
COMMAND = """
import time
from hotlap.perf import cli

def command(arguments):
    try:
        print("ready", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        print("cleaning", flush=True)
        time.sleep(0.5)
        print("clean", flush=True)
        LAST
    return 0

cli.outcome = command
cli.main([])
"""


def started(last: str = "return 130", *before: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*before, sys.executable, "-c", COMMAND.replace("LAST", last)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert heard(process) == "ready\n"
    return process


def heard(process: subprocess.Popen[str]) -> str:
    """The next line, when its print has returned: one that is interrupted may print it again."""
    assert process.stdout is not None
    line = process.stdout.readline()
    time.sleep(0.1)
    return line


def end(process: subprocess.Popen[str]) -> tuple[list[str], int]:
    """What it printed, and its status."""
    printed, _ = process.communicate(timeout=20)
    return printed.split(), process.returncode


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize("last", ["return 130", "raise", "raise SystemExit(1)"])
def test_a_signal_ends_a_command_in_order(number: signal.Signals, code: int, last: str) -> None:
    process = started(last)
    process.send_signal(number)
    assert end(process) == (["cleaning", "clean"], code)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_what_follows_does_not_cut_the_end_short(first: signal.Signals) -> None:
    """As CI systems cancel a job: SIGINT, SIGTERM some seconds later."""
    process = started()
    process.send_signal(first)
    assert heard(process) == "cleaning\n"
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGHUP)
    assert end(process) == (["clean"], 128 + first)


def test_a_second_ctrl_c_does() -> None:
    process = started()
    process.send_signal(signal.SIGTERM)
    assert heard(process) == "cleaning\n"
    process.send_signal(signal.SIGINT)
    assert end(process) == ([], 143)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    process = started("return 130", "nohup")
    process.send_signal(signal.SIGHUP)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert end(process) == (["cleaning", "clean"], 143)


def test_a_command_that_nobody_interrupts_has_its_own_status() -> None:
    program = "from hotlap.perf import cli; cli.status = lambda arguments: 3; cli.main([])"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 3
