"""What is for a GPU says on a machine without one that nothing ran, and writes its file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="there is a GPU here: bench/on_gpu.sh is what to run"
)


def run(command: list[str], timeout_s: float, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in the repository, with more environment variables."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.mark.slow
def test_the_benchmarks_of_kernels_are_skipped_and_their_json_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    chosen = ["bench", "-k", "kernels and softmax and eager", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *chosen, "--benchmark-json", str(out)]
    done = run(command, 240, HOTLAP_RUNS=str(tmp_path / "runs"))
    assert done.returncode == 0 and "4 skipped" in done.stdout, done.stdout[-3000:]
    content = json.loads(out.read_text())
    own = [result for result in content["hotlap"]["results"] if result["case"]["backend"] != "pace"]
    assert content["benchmarks"] == [] and len(own) == 4
    assert {(result["status"], result["reason"]["code"]) for result in own} == {("skipped", "no_device")}
    assert not any(result.get("metrics") for result in own)


def test_the_checks_for_a_gpu_are_listed_and_none_claims_to_have_run(tmp_path: Path) -> None:
    done = run(["bash", "bench/on_gpu.sh", str(tmp_path)], 120, PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    checks = json.loads((tmp_path / "on_gpu.json").read_text())["checks"]
    assert len(checks) > 15
    assert {(check["verified_to"], check["status"]) for check in checks} == {("L0", "skipped")}


def test_a_check_that_fails_says_with_what() -> None:
    """The judge of numbers is asked for an operation that is not there."""
    done = run([sys.executable, "bench/on_gpu.py", "--judge", "no_such_operation"], 120)
    assert done.returncode == 1 and "No module named 'hotlap.kernels.ops.no_such_operation'" in done.stdout


def result_of(backend: str, status: str) -> dict[str, Any]:
    """What a results file says of a case."""
    return {
        "case": {"workload": "gpt", "backend": backend, "precision": "fp32"},
        "status": status,
        "reason": {"code": "export_failed", "detail": "planted"},
        "metrics": {"latency": {}} if status == "ok" else {},
    }


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ([("eager", "ok"), ("compile", "ok"), ("openvino", "skipped")], ""),
        ([("eager", "ok"), ("compile", "failed")], "gpt compile fp32 failed: export_failed: planted"),
        (
            [("eager", "ok"), ("onnxruntime", "fell_back")],
            "gpt onnxruntime fp32 fell_back: export_failed: planted",
        ),
        ([("eager", "skipped")], "nothing was measured"),
    ],
)
def test_a_command_that_ends_well_proves_no_case_that_failed(
    results: list[tuple[str, str]], reason: str, tmp_path: Path
) -> None:
    """`hotlap run` ends with 0 where only eager ran, `pytest bench` where all was skipped."""
    spec = spec_from_file_location("on_gpu", ROOT / "bench" / "on_gpu.py")
    assert spec is not None and spec.loader is not None
    on_gpu = module_from_spec(spec)
    spec.loader.exec_module(on_gpu)
    assert on_gpu.unproven(tmp_path / "none.json") == "none.json was not written"
    own = [result_of(backend, status) for backend, status in [*results, ("pace", "ok")]]
    for content in ({"results": own}, {"benchmarks": [], "hotlap": {"results": own}}):
        (tmp_path / "results.json").write_text(json.dumps(content))
        assert on_gpu.unproven(tmp_path / "results.json") == reason


def test_an_example_moves_to_the_device_with_its_strides_and_its_place_in_memory() -> None:
    """Else sliced and expanded examples would arrive contiguous. `cpu:0` is a device to move to."""
    code = """
import torch, prove
whole = torch.arange(24.0).reshape(4, 6)
example = [whole[1:, 1::2], whole.t(), whole[:1].expand(5, 6), torch.empty(0, 3)]
for before, after in zip(example, prove.on_device(example)):
    assert after.equal(before) and after.stride() == before.stride()
    assert after.storage_offset() == before.storage_offset()
print(len(example))
"""
    command = [sys.executable, "-c", code]
    done = run(command, 120, HOTLAP_PROVE_ON="cpu:0", PYTHONPATH=str(ROOT / "tests" / "kernels"))
    assert done.stdout == "4\n", done.stderr[-1500:]
