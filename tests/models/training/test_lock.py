"""A run is trained by one process at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hotlap.models import runs
from hotlap.perf.cli import status

# Holds a run's folder, in a process that has a child, as one with loader workers does.
HOLDING = """
import os, sys, time
from pathlib import Path
from hotlap.models import runs

with runs.held(Path(sys.argv[1])):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


def test_a_second_training_of_a_run_is_refused(
    tiny: Callable[..., Any], tmp_path: Path, runs_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("tiny_net:Slow", "--data", "tiny_net:Rows", "trainer.max_epochs=2", "checkpoint_every=2")
    settings = ("trainer.accelerator=cpu", "threads=1")
    command = [sys.executable, "-m", "hotlap.perf.cli", "train", *words, *settings]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        while not (checkpoints := list(runs_folder.glob("*/last.ckpt"))):
            assert process.poll() is None
            time.sleep(0.02)
        ID = checkpoints[0].parent.name
        assert status(["train", "--resume", ID]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{ID} is being trained by another process; wait for it, or end it first" in line
        os.kill(process.pid, signal.SIGKILL)
    assert tiny(resume=ID)[0].id == ID


def test_a_child_that_outlives_its_killed_process_holds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        with pytest.raises(runs.NotResumable, match="by another process"), runs.held(tmp_path):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        try:
            with runs.held(tmp_path):
                os.kill(child, 0)  # is alive
        finally:
            os.kill(child, signal.SIGKILL)
