"""`hotlap run` as a person types it: a module that is not ours, bad input, and what is on the disk
afterwards.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from hotlap.perf import cli
from hotlap.perf.lowering import trt_engine
from hotlap.perf.terms.result import Results, read

# Over 20 s on two quiet cores.
pytestmark = pytest.mark.slow


def hotlap(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hotlap.perf.cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.fixture(scope="module")
def ran(planted: Path) -> tuple[str, Results]:
    """A timm-style network of a user's own package through every backend but the planted ones, in
    one block, which alone has every metric.
    """
    backends = (
        "eager,eager[allocator:default][binding:none],compile,compile[package:aoti],onnxruntime,openvino"
    )
    done = hotlap(
        "run",
        "planted.workloads:mobilenet",
        "--backends",
        backends,
        "--target",
        "cpu",
        "--budget",
        "1s",
        "--out",
        "out",
        "--batch",
        "2",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, read(planted / "out" / "results.json")


def test_a_users_network_goes_through_every_backend(ran: tuple[str, Results]) -> None:
    text, results = ran
    by_backend = {result.case.backend: result for result in results.results if not result.case.options}
    assert by_backend.keys() == {"eager", "compile", "onnxruntime", "openvino", "pace"}
    for name, result in by_backend.items():
        assert result.status in ("ok", "noisy"), (name, result.reason)
        assert result.reason is None or result.reason.code in ("not_steady", "wide_interval")
        assert (f"planted.workloads:mobilenet {name} " in text) == (name != "pace")
    assert len({result.race_id for result in results.results}) == 1


def test_every_result_has_evidence(ran: tuple[str, Results]) -> None:
    for result in ran[1].results:
        if result.case.backend == "pace":
            continue
        assert result.deviation is not None
        assert result.deviation.distances.keys() == {"random", "real"}
        assert all(
            distance.within and distance.tolerance > 0 for distance in result.deviation.distances.values()
        )
        assert result.placement is not None
        assert sum(result.placement.ran_on.values()) > 0
        assert {
            "latency",
            "throughput",
            "memory",
            "cold_start",
            "flop_rate",
            "call_latency",
        } <= result.metrics.keys()
        assert "energy" in result.metrics or result.absent["energy"].code == "no_device"
        assert result.verified_to == "L7"


def test_placement_counters(ran: tuple[str, Results]) -> None:
    placements = {
        result.case.spec: result.placement for result in ran[1].results if result.placement is not None
    }
    assert any(
        line.endswith("planted.workloads was not imported")
        for line in placements["compile[package:aoti]"].evidence
    ), "its worker has no use for the model"
    assert placements["compile"].counters["graph_breaks"] == 0
    assert placements["compile"].counters["graphs"] == 1
    assert placements["onnxruntime"].ran_on.keys() == {"CPUExecutionProvider"}
    assert placements["onnxruntime"].counters["memcpy_nodes"] == 0
    assert placements["openvino"].counters["nodes_other_precision"] == 0


def test_cold_start_is_a_ledger(ran: tuple[str, Results]) -> None:
    ledger = {
        result.case.backend: result.metrics["cold_start"].details
        for result in ran[1].results
        if "cold_start" in result.metrics
    }
    assert {"export", "import", "load", "first_call"} <= ledger["onnxruntime"].keys()
    assert {"compile", "import", "load", "first_call"} <= ledger["compile"].keys()
    cold = next(
        result.metrics["cold_start"] for result in ran[1].results if result.case.backend == "onnxruntime"
    )
    parts = [float(cold.details[name] or 0) for name in cold.details if name != "steady"]
    assert cold.values[0][0] == pytest.approx(sum(parts))


def test_report_prints_the_table_again(ran: tuple[str, Results], planted: Path) -> None:
    done = hotlap("report", "out/results.json", "--markdown", "-", cwd=planted)
    assert done.returncode == 0
    assert (
        done.stdout.count("| planted.workloads:mobilenet")
        == sum(result.case.backend != "pace" for result in ran[1].results)
        == 6
    )


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "mlp", "--backends", "onnxruntme"], "did you mean onnxruntime"),
        (["run", "mlp", "--precisions", "fp61"], "did you mean fp16"),
        (["run", "mlp", "--backends", "compile[mode:fast]"], "compile[mode]"),
        (["run", "mlp", "--batch", "0"], "--batch '0'"),
        (["run", "mlp", "--budget", "soon"], "90s"),
        (["run", "mlp", "--device", "tpu"], "cuda:N"),
        (["run", "no_such_package:make"], "no module named 'no_such_package'"),
        (["run", "planted.workloads:tiny", "--checkpoint", "none.ckpt"], "none.ckpt does not exist"),
        (["run", "mlp", "--out", "/proc/hotlap"], "choose another --out"),
        (["run", "--resume", "20200101-000000-0000"], "no results.json"),
    ],
)
def test_misuse_is_one_line_with_the_remedy(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.status(arguments) == 2
    printed = capsys.readouterr().err
    assert words in printed
    assert len(printed.strip().splitlines()) == 1


def test_misuse_ends_the_process_with_2(planted: Path) -> None:
    done = hotlap("run", "resnet50x", cwd=planted)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "did you mean resnet" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_two_runs_in_one_folder_are_refused(planted: Path) -> None:
    arguments = [
        sys.executable,
        "-m",
        "hotlap.perf.cli",
        "run",
        "planted.workloads:tiny",
        "--backends",
        "eager",
        "--out",
        "shared",
    ]
    first = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, cwd=planted)
    try:
        while not (planted / "shared" / "results.json").exists():
            assert first.poll() is None
            time.sleep(0.05)
        second = hotlap(
            "run", "planted.workloads:tiny", "--backends", "eager", "--out", "shared", cwd=planted
        )
        assert second.returncode == 2
        assert "another run is writing to shared" in second.stderr
    finally:
        first.kill()
        first.wait()


def test_doctor_names_what_is_here_what_is_not_and_the_noise(planted: Path) -> None:
    done = hotlap("doctor", "--seconds", "1", "--device", "cuda:0", cwd=planted)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "torch 2." in done.stdout
    assert "no_device" in done.stdout
    assert "peak fp32" in done.stdout
    assert "noise: " in done.stdout


CHECKPOINT = """
import lightning.pytorch as L
import torch

class Net(L.LightningModule):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(4, width)
        self.example_input_array = torch.ones(2, 4)

    def forward(self, x):
        return self.layer(x)

class Other(Net):
    def __init__(self, width: int = 8) -> None:
        super().__init__(width)
        self.more = torch.nn.Linear(3, 3)
"""


def test_a_users_checkpoint_and_the_wrong_class_for_it(
    planted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (planted / "lightnings.py").write_text(CHECKPOINT)
    monkeypatch.syspath_prepend(str(planted))
    store(import_module("lightnings").Net(width=16), planted / "net.ckpt")
    right, wrong = (
        hotlap(
            "run",
            f"lightnings:{name}",
            "--checkpoint",
            "net.ckpt",
            "--backends",
            "eager",
            "--budget",
            "1s",
            "--out",
            name,
            cwd=planted,
        )
        for name in ("Net", "Other")
    )
    assert right.returncode == 0, right.stdout + right.stderr
    (eager,) = (
        result for result in read(planted / "Net" / "results.json").results if result.case.backend == "eager"
    )
    assert eager.weights.startswith("checkpoint net.ckpt sha256:")
    assert wrong.returncode == 4
    assert "is not of this module: it lacks" in wrong.stdout
    assert (planted / "Other" / "results.json").exists()


def store(module: Any, file: Path) -> None:
    """Writes a Lightning checkpoint of the module."""
    import lightning.pytorch as L

    from hotlap.models.quiet import undisturbed

    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    with undisturbed(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(accelerator="cpu", **quiet)
        trainer.strategy.connect(module)
        trainer.save_checkpoint(file)


def test_an_operator_that_only_the_cpu_has_is_named_by_every_backend(planted: Path) -> None:
    backends = [
        "eager",
        "compile",
        "triton",
        "onnxruntime",
        *(["tensorrt"] if trt_engine.installed() else []),
    ]
    done = hotlap(
        "run",
        "planted.workloads:only_here",
        "--backends",
        ",".join(backends),
        "--target",
        "sm_89",
        "--batch",
        "2",
        "--out",
        "only_here",
    )
    assert done.returncode == 4, done.stdout + done.stderr
    by_backend = {
        result.case.backend: result for result in read(planted / "only_here" / "results.json").results
    }
    assert by_backend.keys() == set(backends)
    for name, result in by_backend.items():
        assert result.status == "failed" and result.reason is not None, (name, result.reason)
        assert result.verified_to == "L0" and not result.metrics, (name, result.reason)
        assert result.reason.code in ("unsupported_op", "export_failed"), (name, result.reason)
        assert re.search(r"planted(::|\.)only_here", result.reason.detail), (name, result.reason)
