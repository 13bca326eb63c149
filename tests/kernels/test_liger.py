"""Beside Liger-Kernel: no further from fp64 on any operation that both have, on the same inputs in
the same interpreter.
"""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from collections.abc import Callable

import pytest

pytest.importorskip("liger_kernel", reason="liger-kernel is not installed: pip install 'hotlap[dev]'")

# Over 20 s on two quiet cores.
pytestmark = pytest.mark.slow
# Most that the ratio of both distances may be: rounding is the same where the arithmetic is, but a
# libm of another processor may move single elements.
SAME = 1.02
# Operations that both have.
SHARED = (
    "add_rms_norm",
    "cross_entropy",
    "fused_linear_cross_entropy",
    "layer_norm",
    "rms_norm",
    "rotary",
    "softmax",
    "swiglu",
)


def test_no_further_from_fp64_than_liger(
    run_program: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run_program("liger.py")
    assert done.returncode == 0, done.stderr[-3000:]
    squares: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for line in done.stdout.splitlines():
        row = json.loads(line)
        squares[row["op"], row["dtype"]].append(
            ((row["ours"] / row["scale"]) ** 2, (row["theirs"] / row["scale"]) ** 2)
        )
    assert {op for op, _ in squares} == set(SHARED) and len(squares) == 3 * len(SHARED)
    ratios = {
        key: (sum(ours for ours, _ in pairs) / sum(theirs for _, theirs in pairs)) ** 0.5
        for key, pairs in squares.items()
    }
    assert {key: ratio for key, ratio in ratios.items() if not ratio <= SAME} == {}
