"""The last lines of a real `hotlap run` hold: its figures are the file's, its Python runs, its
command works.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hotlap.perf.reports import outcome
from hotlap.perf.terms.result import read

# Over 20 s on two quiet cores.
pytestmark = pytest.mark.slow


def hotlap(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "hotlap.perf.cli", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_last_lines_load_what_was_fastest(planted: Path) -> None:
    """A small model, of which eager's time is mostly overhead: nothing else is as slow."""
    backends = ("--backends", "eager,onnxruntime", "--budget", "25s", "--target", "cpu")
    printed = hotlap(planted, "run", "planted.workloads:tiny", *backends, "--out", "last").splitlines()
    results = read(planted / "last" / "results.json").results
    sentence, where, head, *code, following = printed[-7:]
    assert [sentence] == outcome.sentences(results)
    assert re.fullmatch(
        r"planted\.workloads:tiny: onnxruntime is \S+ times as fast as eager \(±\S+%\), outputs within"
        r" tolerance \(\S+ of what is allowed\)",
        sentence,
    )
    assert where == "results: last/results.json"
    assert head == "load planted.workloads:tiny as onnxruntime:"
    arrays = [np.zeros((1, 64), np.float32)]
    program = "\n".join(line.removeprefix("    ") for line in code)
    assert len(code) == 3 and program.endswith("# numpy: float32[1, 64]")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(planted)
        names: dict[str, object] = {"arrays": arrays}
        exec(program, names)
    (output,) = names["outputs"]  # type: ignore[misc]
    assert output.shape == (1, 10)
    words = shlex.split(following.removeprefix("next: "))
    assert words[:2] == ["hotlap", "bench-artefact"]
    table = hotlap(planted, *words[1:], "--budget", "1s")
    assert "onnxruntime" in table and "pace" not in table
