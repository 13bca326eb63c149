"""`hotlap optimize` as its user types it: in a box of one CPU, with a model whose int8 is right on
the data that gives its ranges and wrong on the validation split.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from hotlap.perf.artefacts import opening
from hotlap.perf.commands.optimizing import Question, asked_before
from hotlap.perf.lookup.cases import LIBRARY_DEFAULTS
from hotlap.perf.lookup.workloads import Reference
from hotlap.perf.terms import result
from hotlap.perf.terms.case import Plan
from hotlap.perf.terms.reasons import Misuse

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
    assert re.search(r"planted_net:predict [\d.]+x \[.*of it is now prepared: no model gives", done.stdout)

    started = subprocess.run([out / "run.sh"], capture_output=True, text=True, check=True)
    assert started.stdout.startswith("output 0: float32[1, 10]")
    np.savez(tmp_path / "own.npz", in0=np.ones((1, 64), np.float32))
    own = subprocess.run(
        [out / "run.sh", sys.executable, out / "predict.py", tmp_path / "own.npz"],
        capture_output=True,
        text=True,
        check=True,
    )
    importing = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, "-c", "import predict"], cwd=out, env=importing, check=True)
    assert list(out.glob("__pycache__/predict.*.pyc"))
    import hotlap

    (output,) = hotlap.open_artefact(out)(np.ones((1, 64), np.float32))
    assert own.stdout.endswith(f"mean {output.mean():.6g}\n")
    names = [line.partition("==")[0] for line in (out / "requirements.txt").read_text().split()]
    assert "numpy" in names and "torch" not in names


@pytest.mark.slow
def test_a_choice_that_was_stopped_goes_on_and_builds_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTLAP_RUNS", str(tmp_path / "runs"))
    (tmp_path / "planted_net.py").write_text(MODEL)
    command = [sys.executable, "-m", "hotlap.perf.cli", "optimize"]
    question = ["planted_net:make", "--precisions", "fp32", "--budget", "4m", "--box", "cpus=1"]
    started = subprocess.Popen(
        [*command, *question], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    for line in started.stdout:
        if "building openvino" in line:
            started.send_signal(signal.SIGINT)
            break
    _, errors = started.communicate()
    (folder,) = (tmp_path / "runs" / "choose").glob("*/question.json")
    words = f"stopped before anything was timed; go on with: hotlap optimize --resume {folder.parent.name}"
    assert words in errors and started.returncode == 130
    done = subprocess.run(
        [*command, "--resume", "--budget", "20s"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "taking onnxruntime" in done.stdout, done.stdout + done.stderr
    assert "building onnxruntime" not in done.stdout and "in a box of 1 CPU" in done.stdout
    search = max((tmp_path / "runs" / "choose").glob("*/search/results.json"))
    onnx = [
        each.metrics["cold_start"].centre
        for each in result.read(search).results
        if each.case.backend == "onnxruntime" and "cold_start" in each.metrics
    ]
    assert onnx and min(onnx) > 0.2  # the time of the build that was taken is part of it


def test_a_question_is_asked_again_by_its_id_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTLAP_RUNS", str(tmp_path))
    with pytest.raises(Misuse, match=r"no choice latest under .*; there are none"):
        asked_before("latest")
    question = Question(
        Reference("net:make"), "min latency", "p99<=1ms", Plan(), "cpu", 1, ("fp32",), "", "hotlap optimize"
    )
    for name in ("20260101-000000-aa", "20260102-000000-bb"):
        (tmp_path / "choose" / name).mkdir(parents=True)
        (tmp_path / "choose" / name / "question.json").write_bytes(msgspec.json.encode(question))
    assert asked_before("latest") == asked_before("20260101-000000-aa") == question
    assert asked_before("latest", 5.0).plan.budget_s == 5
    for name in ("nothing", "..", "../choose"):
        with pytest.raises(Misuse, match=r"takes the ID of a choice|there are 20260101-000000-aa, 2026"):
            asked_before(name)
    (tmp_path / "choose" / "20260102-000000-bb" / "question.json").write_text('{"goal": "\x1b[31m"}')
    with pytest.raises(Misuse, match=r"question\.json: .*ask anew"):
        asked_before("latest")


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    for options, words in (
        (("-o", "full"), "holds other files and no artefact"),
        (("--subject-to", "p98<=1ms"), "unknown quantity 'p98': did you mean"),
        (("--target", "sm_90"), "what is chosen must be timed here"),
        (("--box", "cpu=1"), "expected cpus=2,memory=1GiB"),
        (("--resume",), "takes a --budget alone"),
    ):
        done = optimized(tmp_path, *options)
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
