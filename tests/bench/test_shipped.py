"""The script that races a shipped folder beside what was measured: its clock, and its verdict."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from bench import shipped

PREDICT = """
import os, time


def predict(x):
    assert x.shape == (1, 4)
    time.sleep(float(os.environ["NAP_S"]))
"""


def test_a_program_is_timed_in_its_own_environment(tmp_path: Path) -> None:
    """Planted: a predict that sleeps as long as its environment says."""
    (tmp_path / "predict.py").write_text(PREDICT)
    (tmp_path / "clock.py").write_text(shipped.CLOCK)
    (tmp_path / "manifest.json").write_text(json.dumps({"inputs": [{"dtype": "float32"}]}))
    np.savez(tmp_path / "reference.npz", in0=np.zeros((3, 1, 4)))
    command = [sys.executable, tmp_path / "clock.py", tmp_path]
    for nap_s in (0.005, 0.02):
        with shipped.program(command, {**os.environ, "NAP_S": str(nap_s)}) as sample:
            assert nap_s <= sample() < 10 * nap_s


def model(shipped_s: float, bare_s: float) -> dict[str, object]:
    blocks = [
        {"measured": [0.01 * drift] * 5, "shipped": [shipped_s * drift] * 5, "bare": [bare_s * drift] * 5}
        for drift in (0.9, 1.0, 1.001, 1.2)
    ]
    return {"hardware": "CPU", "way": "onnxruntime fp32", "blocks": blocks}


def test_only_a_whole_interval_within_the_aim_counts() -> None:
    stored = {"models": {"near": model(0.0101, 0.012), "far": model(0.0105, 0.02), "none": {"failed": "a|b"}}}
    lines = list(shipped.table(stored))
    assert "| near | onnxruntime fp32 | 10.0 ms | 1.010 [1.010, 1.010] | 1.200 [1.200, 1.200] | 4 |" in lines
    assert "- whole interval within 3% of what was measured: 1 of 2" in lines
    assert lines[-1] == r"- none: a\|b"
