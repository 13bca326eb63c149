"""What is for a GPU says on a machine without one that nothing ran, and leaves its file all the
same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="there is a GPU here: bench/on_gpu.sh is what to run"
)


def test_the_benchmarks_of_kernels_are_skipped_and_their_json_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    asked = [
        sys.executable,
        "-m",
        "pytest",
        "bench",
        "-k",
        "kernels and softmax and eager",
        "-q",
        "-p",
        "no:cacheprovider",
        "--benchmark-json",
        str(out),
    ]
    done = subprocess.run(
        asked,
        cwd=ROOT,
        env={**os.environ, "HOTLAP_RUNS": str(tmp_path / "runs")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0 and "4 skipped" in done.stdout, done.stdout[-3000:]
    found = json.loads(out.read_text())
    own = [one for one in found["hotlap"]["results"] if one["case"]["backend"] != "pace"]
    assert found["benchmarks"] == [] and len(own) == 4
    assert {(one["status"], one["reason"]["code"]) for one in own} == {("skipped", "no_device")} and not any(
        one.get("metrics") for one in own
    )


def test_the_checks_for_a_gpu_are_listed_and_none_claims_to_have_run(tmp_path: Path) -> None:
    asked = ["bash", str(ROOT / "bench" / "on_gpu.sh"), str(tmp_path)]
    done = subprocess.run(
        asked,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    checks = json.loads((tmp_path / "on_gpu.json").read_text())["checks"]
    assert len(checks) > 15 and {(one["verified_to"], one["status"]) for one in checks} == {("L0", "skipped")}


def test_a_check_that_fails_says_with_what(tmp_path: Path) -> None:
    """The judge of numbers, on a CPU in the interpreter: an operation that is not there."""
    done = subprocess.run(
        [sys.executable, "bench/on_gpu.py", "--judge", "no_such_operation"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1 and "No module named 'hotlap.kernels.ops.no_such_operation'" in done.stdout


@pytest.mark.parametrize(
    ("results", "why"),
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
    results: list[tuple[str, str]], why: str, tmp_path: Path
) -> None:
    """`hotlap run` ends with 0 where eager alone was measured, `pytest bench` where all was
    skipped.
    """
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("on_gpu", ROOT / "bench" / "on_gpu.py")
    assert spec is not None and spec.loader is not None
    on_gpu = module_from_spec(spec)
    spec.loader.exec_module(on_gpu)
    assert on_gpu.unproven(tmp_path / "none.json") == "none.json was not written"
    told = {"code": "export_failed", "detail": "planted"}
    made = [
        {
            "case": {"workload": "gpt", "backend": name, "precision": "fp32"},
            "status": status,
            "reason": told,
            "metrics": {"latency": {}} if status == "ok" else {},
        }
        for name, status in [*results, ("pace", "ok")]
    ]
    for content in ({"results": made}, {"benchmarks": [], "hotlap": {"results": made}}):
        (tmp_path / "results.json").write_text(json.dumps(content))
        assert on_gpu.unproven(tmp_path / "results.json") == why


def test_an_example_moves_to_the_device_with_its_strides_and_its_place_in_memory() -> None:
    """Else sliced and expanded examples would arrive contiguous. `cpu:0` is a device to move to."""
    code = """
import torch, prove
whole = torch.arange(24.0).reshape(4, 6)
given = [whole[1:, 1::2], whole.t(), whole[:1].expand(5, 6), torch.empty(0, 3)]
for before, after in zip(given, prove.on_device(given)):
    assert after.equal(before) and after.stride() == before.stride()
    assert after.storage_offset() == before.storage_offset()
print(len(given))
"""
    environment = {**os.environ, "HOTLAP_PROVE_ON": "cpu:0", "PYTHONPATH": str(ROOT / "tests" / "kernels")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "4\n", done.stderr[-1500:]
