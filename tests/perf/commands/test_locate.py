"""`hotlap run --locate` as a person types it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hotlap.perf.terms.result import read

# Over 20 s on two quiet cores.
pytestmark = pytest.mark.slow


def test_a_wrong_file_is_located_and_what_has_no_file_is_said(planted: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "hotlap.perf.cli", "run", "planted.workloads:tiny", "--locate"),
            *("--backends", "eager,onnxruntime,wrong_file,imprecise", "--budget", "1s", "--out", "out"),
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = {result.case.backend: result for result in read(planted / "out" / "results.json").results}
    assert results["onnxruntime"].status in ("ok", "noisy")
    wrong, imprecise = results["wrong_file"].reason, results["imprecise"].reason
    assert wrong is not None and imprecise is not None
    assert wrong.code == imprecise.code == "accuracy"
    assert "; first wrong node: Gemm node_linear_1 (aten.linear.default): its inputs are" in wrong.detail
    assert "the file itself says so" in wrong.detail
    assert imprecise.detail.endswith(
        "; not located: --locate looks into ONNX files and OpenVINO's IR, and imprecise loads none"
    )
    folder = planted / "out" / wrong.detail.rpartition("sub-graph: ")[2]
    assert sorted(file.name for file in folder.iterdir()) == ["model.onnx", "run.py", "values.npz"]
    shown = subprocess.run([sys.executable, folder / "run.py"], capture_output=True, text=True, check=False)
    assert shown.returncode == 1 and shown.stdout.startswith("off by "), shown
    assert "first wrong node: Gemm node_linear_1" in " ".join(done.stdout.split())
