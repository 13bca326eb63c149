"""bench/kernel_times.py where there is no GPU: every call is made, and nothing is launched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import kernel_times
from hotlap.kernels import library

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "bench" / "kernel_times.py"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_every_operation_is_called_forward_and_backward(tmp_path: Path) -> None:
    out = tmp_path / "times.jsonl"
    names = ("layer_norm", "matmul", "total_norm")
    done = run(out, "--dry", *names)
    assert done.returncode == 0, done.stderr
    machine, *rows = map(json.loads, out.read_text().splitlines())
    assert machine["device"].startswith("none")
    assert [(row["operation"], row["direction"], row["implementation"]) for row in rows] == [
        ("layer_norm", "forward", "ours"),
        ("layer_norm", "forward", "eager"),
        ("layer_norm", "backward", "ours"),
        ("layer_norm", "backward", "eager"),
        ("matmul", "forward", "ours"),
        ("matmul", "forward", "eager"),
        ("total_norm", "forward", "ours"),
        ("total_norm", "forward", "eager"),
    ]
    assert all(row["call_us"] == row["device_us"] == 0 and row["bound_us"] is None for row in rows)


def test_an_operation_that_falls_leaves_the_others_and_late_ones_are_said_to_be(tmp_path: Path) -> None:
    out = tmp_path / "times.jsonl"
    done = run(out, "--dry", "no_such_operation", "total_norm")
    assert done.returncode == 0, done.stderr
    _, broken, *rows = map(json.loads, out.read_text().splitlines())
    assert "no operation is called 'no_such_operation'" in broken["error"] and len(rows) == 2
    late = tmp_path / "late.jsonl"
    assert run(late, "--dry", "--seconds", "0", "total_norm").returncode == 0
    assert json.loads(late.read_text().splitlines()[1]) == {
        "operation": "total_norm",
        "error": "timeout: not begun",
    }
    assert run().returncode == 2


def test_the_stored_times_are_of_every_operation_and_within_their_bound() -> None:
    machine, *rows = map(json.loads, (ROOT / "docs" / "results" / "h200.jsonl").read_text().splitlines())
    assert machine["device"] == "NVIDIA H200"
    assert {row["operation"] for row in rows} == set(library.NAMES)
    bounded = [row for row in rows if row["implementation"] == "ours" and row["bound_us"]]
    assert len(bounded) >= 20 and all(row["device_us"] >= 0.95 * row["bound_us"] for row in bounded)


def test_an_operation_s_own_copies_count_and_those_that_empty_the_cache_do_not() -> None:
    flushes = [("Memcpy DtoD (Device -> Device)", 120.0)] * kernel_times.CALLS
    own = [("Memcpy DtoD (Device -> Device)", 15.0), ("backward_kernel", 40.0)] * kernel_times.CALLS
    assert kernel_times.without_flushes([*flushes, *own]) == pytest.approx(55e-6)


def test_the_table_names_what_failed_and_leaves_the_cell_of_what_is_not_there_empty() -> None:
    machine = {
        "device": "a GPU",
        "torch": "1",
        "triton": "2",
        "copied_bytes_s": 1e12,
        "product_flops_s": 1e12,
    }
    row = {"operation": "adamw", "direction": "forward", "call_us": 9.0, "bound_us": None}
    stored = [
        machine,
        {**row, "implementation": "compile", "device_us": 8.0},
        {**row, "implementation": "ours", "device_us": 4.0},
        {"operation": "softmax", "error": "timeout: not begun"},
    ]
    lines = list(kernel_times.table(stored))
    assert "| adamw | forward |  | 4 (9) |  | 8 (9) |  | 2.00 |" in lines
    assert lines[-1] == "- softmax: timeout: not begun"
