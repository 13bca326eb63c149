"""Programs of this folder, each in a process of its own that is forked from one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def run_program() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs a program of this folder, in which a RuntimeWarning is an error.

    forks.py imports torch and Triton once for all of them.
    """
    with subprocess.Popen(
        [sys.executable, "-W", "error::RuntimeWarning", str(HERE / "forks.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A process with threads cannot be forked safely (OpenBLAS's), and torch's own wait for each
        # other longer than they work: all tensors are small.
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    ) as forks:

        def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
            command = [str(HERE / program), *arguments]
            assert forks.stdin is not None and forks.stdout is not None
            forks.stdin.write(json.dumps(command) + "\n")
            forks.stdin.flush()
            answer = forks.stdout.readline()
            assert answer, "forks.py has ended; why stands in this test's stderr"
            return subprocess.CompletedProcess(command, *json.loads(answer))

        yield run
