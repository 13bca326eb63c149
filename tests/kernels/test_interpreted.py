"""The folder interpreted/, each file in a process that has Triton's interpreter; and a training
that goes through it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = sorted((HERE / "interpreted").glob("test_*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_in_the_interpreter(file: Path) -> None:
    asked = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(
        asked,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_training_with_our_kernels_has_the_losses_of_eager(dtype: str) -> None:
    """Each loss as near to that of a training in fp64 as eager's, by the oracle's rule: three
    times, and half an ulp.
    """
    done = subprocess.run(
        [sys.executable, str(HERE / "train.py"), dtype],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    ulp = {"float32": 2**-23, "bfloat16": 2**-7}[dtype]
    exact = found["exact"]
    distance = {
        name: rms([a - b for a, b in zip(found[name], found["exact"], strict=True)])
        for name in ("eager", "ours")
    }
    assert exact[-1] < 0.9 * exact[0], "nothing was learnt, so the curve says nothing"
    assert distance["ours"] <= 3 * distance["eager"] + 0.5 * ulp * rms(exact), (distance, found)
    assert found["fallbacks"] == []
    assert {
        "rms_norm",
        "rms_norm_backward",
        "rotary_backward",
        "swiglu_backward",
        "add_rms_norm_backward",
        "cross_entropy_backward",
    } <= set(found["launched"])


def rms(values: list[float]) -> float:
    return (sum(value * value for value in values) / len(values)) ** 0.5
