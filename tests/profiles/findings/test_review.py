"""`hotlap review`, as its user has it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hotlap.perf import cli
from hotlap.perf.terms import verdict
from hotlap.profiles.pages import text

from .. import synthetic


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    events = [
        synthetic.step(1, 0, 200),
        synthetic.operator("aten::mm", 8, 6),
        *synthetic.launched("ampere_sgemm", 10, 20, 60, 1),
        *synthetic.launched("at::native::vectorized_elementwise_kernel", 100, 110, 40, 2),
        {
            "ph": "i",
            "name": "[memory]",
            "pid": 1,
            "tid": 1,
            "ts": 5,
            "args": {"Device Type": 1, "Device Id": 0, "Bytes": 1024, "Total Allocated": 4096},
        },
    ]
    return synthetic.written(tmp_path / "trace.json.gz", events, packed=True)


def test_one_screen_in_the_order_in_which_it_is_asked(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.status(["review", str(trace)]) == 0
    output = capsys.readouterr().out
    heads = [line.split()[0] for line in output.splitlines()[1:] if line[0] != " "]
    assert heads == ["trust", "step", "time", "bound", "idle", "fixes", "operators", "kernels", "memory"]
    assert "4.00 KiB" in output and "aten::mm" in output and "compute 50.0%" in output
    assert "20.0 us before the GPU's first event, 130 us until its last, 50.0 us after it" in output


def test_as_data_it_joins_the_gate(trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "review.json"
    assert cli.status(["review", str(trace), "--json", str(out)]) == 0
    document = json.loads(out.read_bytes())
    assert document["figures"]["timeline"]["busy_ns"] == 100_000 and document["bound"]["word"] == "compute"
    assert document["figures"]["timeline"]["window_ns"] == 130_000
    assert sum(document["bound"]["parts_ns"].values()) == 200_000  # the step
    assert verdict.read(out).verdict == "pass"
    capsys.readouterr()
    assert cli.status(["review", str(trace), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == document


ONNX_RUNTIME = """
import sys
import numpy as np, onnx, onnxruntime as ort
from onnx import TensorProto, helper

size = [64, 64]
names = [("MatMul", ["x", "w"], "a"), ("Relu", ["a"], "b"), ("MatMul", ["b", "w"], "y")]
nodes = [helper.make_node(kind, inputs, [output], name=f"node_{output}") for kind, inputs, output in names]
x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name in "xy")
weight = onnx.numpy_helper.from_array(np.ones(size, np.float32), "w")
graph = helper.make_graph(nodes, "g", [x], [y], [weight])
options = ort.SessionOptions()
options.enable_profiling, options.profile_file_prefix = True, sys.argv[1]
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
for _ in range(5):
    session.run(None, {"x": np.ones(size, np.float32)})
print(session.end_profiling())
"""


def test_a_profile_of_onnx_runtime_by_operator_and_provider(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ONNX_RUNTIME, str(tmp_path / "ort")],
        capture_output=True,
        text=True,
        check=True,
    )
    trace = done.stdout.strip()
    assert cli.status(["review", trace]) == 0
    output = capsys.readouterr().out
    assert (
        "a profile of ONNX Runtime" in output
        and "(median of 5)" in output
        and "session_initialization" not in output
    )
    out = tmp_path / "out.json"
    assert cli.status(["review", trace, "--json", str(out)]) == 0
    rows = {row["name"]: row["events"] for row in json.loads(out.read_bytes())["operators"]}
    assert rows == {"MatMul on CPU": 10, "Relu on CPU": 5}


def test_a_damaged_file_is_never_green(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.json.gz"
    cut.write_bytes(trace.read_bytes()[:-40])
    out = tmp_path / "review.json"
    assert cli.status(["review", str(cut), "--json", str(out)]) == 4
    assert "the file is cut" in capsys.readouterr().out
    assert verdict.read(out).verdict == "not_comparable"
    assert cli.status(["review", str(cut), "--allow-truncated"]) == 0


@pytest.mark.parametrize("name", ["absent.json", "."])
def test_mistakes_are_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.status(["review", name]) == 4
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_names_cannot_break_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = synthetic.written(
        tmp_path / "t.json",
        [synthetic.kernel("evil\x1b[2J\n::error::boo", 0, 1), synthetic.kernel("k", 5, 1)],
    )
    assert cli.status(["review", str(path)]) == 0
    output = capsys.readouterr().out
    assert "\x1b" not in output and not any(line.startswith("::") for line in output.splitlines())


def test_the_bar_is_as_long_as_the_window() -> None:
    empty = dict.fromkeys(text.MARKS, 0)
    for parts in ({"compute": 1}, {"compute": 1, "launch": 1, "sync": 1}, {"compute": 10**9, "other": 1}):
        drawn = text.bar({**empty, **parts}, sum(parts.values())).split("  ")[0]
        assert len(drawn) == text.BAR
