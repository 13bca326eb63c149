"""`hotlap optimize` as its user types it: in a box of one CPU, with a model whose int8 is right on
the data that gives its ranges and wrong on the validation split.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hotlap.perf.artefacts import opening
from hotlap.perf.lookup.cases import LIBRARY_DEFAULTS
from hotlap.perf.terms import result

MODEL = """
import torch
import hotlap


def make():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)).eval()
    narrow = torch.randn(256, 64) / 50
    wide = torch.randn(512, 64)
    with torch.no_grad():
        truth = net(wide).argmax(1).numpy()
    evaluation = hotlap.Evaluation(
        (wide,), lambda outputs: {"accuracy": float((outputs[0].argmax(1) == truth).mean())},
        "accuracy", "higher", 0.02,
    )
    return hotlap.Workload("net", net, (wide[:1],), evaluate=evaluation, calibration=(narrow,))


def prepared():
    rows = [float(index % 7) for index in range(64)]
    for _ in range(200):
        rows = sorted(rows, key=lambda value: -value)
    return torch.tensor([rows])


def predict(model):
    return model(prepared()).argmax(1)
"""


def optimized(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "planted_net.py").write_text(MODEL)
    command = [sys.executable, "-m", "hotlap.perf.cli", "optimize", "planted_net:make", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_choice_is_right_confirmed_and_runs_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOTLAP_RUNS", raising=False)
    done = optimized(tmp_path, "--budget", "2m", "-o", "out", "--subject-to", "drop<=2%", "--pipeline",
                     "planted_net:predict", "--against", "all", "--box", "cpus=1,memory=4GiB")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "out"
    launch = json.loads((out / "launch.json").read_bytes())
    assert launch["threads"] == 1
    manifest = opening.checked(out)
    assert (
        manifest.precision != "int8"
        and manifest.deviation is not None
        and manifest.deviation.task is not None
    )
    (search,) = tmp_path.glob("runs/choose/*/search/results.json")
    results = result.read(search).results
    coarse = [
        each for each in results if each.case.precision == "int8" and each.case.backend == "onnxruntime"
    ]
    static = [each for each in coarse if each.case.option("int8", "static") == "static"]
    assert static and all(each.reason is not None for each in static)
    assert {each.reason.code for each in static if each.reason} <= {"accuracy", "not_tried"}
    assert all(each.plan.box == "cpus=1,memory=4294967296B" and each.plan.threads == 1 for each in results)
    assert "in a box of 1 CPU and 4.00 GiB (" in done.stdout
    confirmed = result.read(search.parent.parent / "confirm" / "results.json").results
    assert len(confirmed) >= 2 and all(each.disturbance is not None for each in confirmed)
    by_default = [
        [each.case for each in among if each.case.options == LIBRARY_DEFAULTS and "latency" in each.metrics]
        for among in (results, confirmed)
    ]
    assert set(by_default[0]) == set(by_default[1]) and len(by_default[0]) >= 3
    assert "times as fast as" in done.stdout and "drop<=2% holds" in done.stdout
    assert re.search(r"planted_net:predict 1\.\d+x \[.*of it is now prepared: no model gives", done.stdout)

    started = subprocess.run([out / "run.sh"], capture_output=True, text=True, check=True)
    assert started.stdout.startswith("output 0: float32[1, 10]")
    np.savez(tmp_path / "own.npz", in0=np.ones((1, 64), np.float32))
    own = subprocess.run(
        [out / "run.sh", sys.executable, out / "predict.py", tmp_path / "own.npz"],
        capture_output=True,
        text=True,
        check=True,
    )
    import hotlap

    (output,) = hotlap.open_artefact(out)(np.ones((1, 64), np.float32))
    assert own.stdout.endswith(f"mean {output.mean():.6g}\n")
    names = [line.partition("==")[0] for line in (out / "requirements.txt").read_text().split()]
    assert "numpy" in names and "torch" not in names


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    for options, words in (
        (("-o", "full"), "holds other files and no artefact"),
        (("--subject-to", "p98<=1ms"), "unknown quantity 'p98': did you mean"),
        (("--target", "sm_90"), "what is chosen must be timed here"),
        (("--box", "cpu=1"), "expected cpus=2,memory=1GiB"),
    ):
        done = optimized(tmp_path, *options)
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
