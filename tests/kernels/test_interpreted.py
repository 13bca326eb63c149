"""The folder interpreted/, each file in a process that has Triton's interpreter; and a training
that goes through it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

# Over 20 s on two quiet cores.
pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
FILES = sorted((HERE / "interpreted").glob("test_*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_in_the_interpreter(file: Path, run_program: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run_program("in_pytest.py", str(file))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_training_with_our_kernels_has_the_losses_of_eager(
    dtype: str, run_program: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Each loss is as near to that of a training in fp64 as eager's: within three times its
    distance and half an ulp.
    """
    done = run_program("train.py", dtype)
    assert done.returncode == 0, done.stderr[-3000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    ulp = {"float32": 2**-23, "bfloat16": 2**-7}[dtype]
    exact = outcome["exact"]
    distance = {
        name: rms([loss - true for loss, true in zip(outcome[name], exact, strict=True)])
        for name in ("eager", "ours")
    }
    assert exact[-1] < 0.9 * exact[0], "nothing was learnt, so the curve says nothing"
    assert distance["ours"] <= 3 * distance["eager"] + 0.5 * ulp * rms(exact), (distance, outcome)
    assert outcome["fallbacks"] == []
    assert {
        "rms_norm",
        "rms_norm_backward",
        "rotary_backward",
        "swiglu_backward",
        "add_rms_norm_backward",
        "cross_entropy_backward",
    } <= set(outcome["launched"])


def rms(values: list[float]) -> float:
    return (sum(value * value for value in values) / len(values)) ** 0.5
