"""Profiles captured by `hotlap profile` and by the callback: real workers, real profilers, real
fits; what the file says of itself; what is refused.
"""

from __future__ import annotations

import gzip
import json
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import msgspec
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import hotlap
from hotlap.perf.cli import status
from hotlap.perf.race import profiling
from hotlap.perf.terms import printer
from hotlap.profiles.findings import review
from hotlap.profiles.pages import text
from hotlap.profiles.tables import captured, kineto

# Over 20 s on two quiet cores.
pytestmark = [pytest.mark.usefixtures("kept_servers"), pytest.mark.slow]

WORKLOAD = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(512, 2048), torch.nn.Linear(2048, 8)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


def make():
    return Net(), torch.randn(4, 512)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A user's own directory with a model in it."""
    here = tmp_path_factory.mktemp("user")
    (here / "owned.py").write_text(WORKLOAD)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.delenv("HOTLAP_RUNS", raising=False)
        yield here


OPERATORS = {
    "eager": "aten::addmm",
    "compile": "addmm",
    "onnxruntime": "Gemm on CPU",
    "openvino": "FullyConnected on",
}


@pytest.mark.parametrize("backend", sorted(OPERATORS))
def test_each_backend_is_profiled_by_its_own_means(
    backend: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / f"{backend}.json.gz"
    assert (
        status(
            [
                "profile",
                "owned:make",
                "--backend",
                backend,
                "--batch",
                "4",
                "--active",
                "3",
                "--threads",
                "1",
                "-o",
                str(file),
            ]
        )
        == 0
    )
    shown = capsys.readouterr().out
    assert f"captured  {file}" in shown and f"owned:make/{backend}/fp32/b4/cpu/inference" in shown
    result = review.review(file)
    origin = captured.of(result.trace)
    assert origin is not None and origin.backend == backend and origin.overhead is not None
    assert origin.overhead.calls == (20, 3) and origin.overhead.plain_s > 0 and origin.overhead.profiled_s > 0
    assert origin.flops == 2 * 4 * (512 * 2048 + 2048 * 8) and origin.peaks["flop_rate"] > 0
    assert len(result.facts.steps) == 3
    assert any(OPERATORS[backend] in row.name for row in result.operators), result.operators
    assert any("under the profiler" in note or "cost is not visible" in note for note in result.trust.notes)
    assert result.trace.source == (backend if backend in ("onnxruntime", "openvino") else "kineto")
    steps = sum(step.dur for step in result.facts.steps)
    # OpenVINO counts whole microseconds
    assert sum(row.length for row in result.operators) <= steps * 1.001 + 3_000
    assert not list(folder.glob("*.work")) and not list(folder.glob("*.part"))


def test_the_file_names_no_folder_of_this_machine(folder: Path) -> None:
    file = folder / "eager.json.gz"
    content = gzip.decompress(file.read_bytes())
    assert str(folder).encode() not in content and sys.prefix.encode() not in content


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["owned:make", "--backend", "null"], 4, "dep_missing: backend null has no profiler"),
        (["owned:make", "--backend", "eager", "--device", "cuda:0", "--batch", "4"], 4, "no_device"),
        (["owned:make", "--backend", "eagre"], 2, "did you mean eager?"),
        (["owned:make", "--mode", "train"], 2, "Trainer(callbacks=[hotlap.Profile("),
        (["owned:make", "-o", "trace.txt"], 2, "ends in .json or .json.gz"),
        (["owned:nothing", "--batch", "4"], 4, "invalid_input: owned:nothing"),
        (["nothing:make"], 2, "no module named 'nothing'"),
        (["owned:make", "-o", "/proc/no/trace.json"], 2, "cannot write to /proc/no"),
        (["owned:make", "-o", "folder.json"], 2, "folder.json is a folder"),
        (["mlp", "--mode", "train", "--precision", "bf16"], 4, "unsupported_precision: training in bf16"),
        (["mlp", "--mode", "train", "--device", "cuda:1"], 4, "no_device"),
        (
            ["mlp", "--mode", "train", "--timeout", "500ms"],
            4,
            "timeout: training mlp did not end within 0.5 s",
        ),
    ],
)
def test_what_cannot_be_profiled_says_why(
    arguments: list[str], code: int, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "folder.json").mkdir(exist_ok=True)
    if "cuda:" in " ".join(arguments) and torch.cuda.is_available():
        pytest.skip("this machine has the GPU whose lack is tested")
    assert status(["profile", *arguments]) == code
    assert words in capsys.readouterr().err


def test_outputs_that_are_wrong_are_not_profiled(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["profile", "planted.workloads:tiny", "--backend", "imprecise", "-o", "trace.json"]) == 4
    assert "has no profiler of its own" in capsys.readouterr().err
    assert not Path("trace.json").exists()


class Module(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        time.sleep(0.05)


def fit(callback: L.Callback, steps: int, **more: Any) -> None:
    from hotlap.models.quiet import undisturbed

    data = DataLoader(TensorDataset(torch.randn(4 * steps, 8)), batch_size=4)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    with undisturbed():
        trainer = L.Trainer(accelerator="cpu", max_steps=steps, callbacks=[callback], **quiet, **more)
        trainer.fit(Module(), data, data if more else None)


def test_the_callback_records_steps_of_a_fit(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "trace.json"
    fit(hotlap.Profile(file, wait=4, warmup=1, active=3), 12)
    result = review.review(file)
    origin = captured.of(result.trace)
    assert origin is not None and origin.overhead is not None and origin.overhead.calls == (3, 3)
    assert len(result.facts.steps) == 3
    names = {result.trace.names[code] for code in result.trace.operators.name.tolist()} | {
        result.trace.names[code] for code in result.trace.notes.name.tolist()
    }
    assert (
        "aten::addmm" in names
        and any(name.startswith("Optimizer.step#SGD") for name in names)
        and any("DataLoader" in name for name in names)
    )
    assert [path.name for path in file.parent.iterdir()] == ["trace.json"]


def test_validation_between_recorded_steps_is_no_cost_of_the_profiler(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    fit(
        hotlap.Profile(file, wait=4, warmup=1, active=3),
        12,
        val_check_interval=2,
        limit_val_batches=2,
        num_sanity_val_steps=0,
    )
    origin = captured.of(review.review(file).trace)
    assert (
        origin is not None
        and origin.overhead is not None
        and max(origin.overhead.profiled_s, origin.overhead.plain_s) < 0.05
    )


def test_one_callback_serves_several_fits(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    callback = hotlap.Profile(file, wait=3, warmup=1, active=2)
    for _ in range(2):
        fit(callback, 8)
        assert len(review.review(file).facts.steps) == 2
        file.unlink()


def test_a_file_that_cannot_be_written_is_said_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "dir.json").mkdir()
    with pytest.raises(ValueError, match="is a folder; name a file in it"):
        fit(hotlap.Profile(tmp_path / "dir.json"), 8)


def test_a_file_that_cannot_be_written_any_more_does_not_end_the_training(tmp_path: Path) -> None:
    class Full(hotlap.Profile):
        def on_train_batch_end(self, *arguments: Any) -> None:
            super().on_train_batch_end(*arguments)
            if len(self.steps) == 3:
                self.file = Path("/proc/no/trace.json")

    with pytest.warns(UserWarning, match="was not written: No such file"):
        fit(Full(tmp_path / "trace.json", wait=3, warmup=1, active=2), 8)


def test_a_fit_that_is_too_short_says_so(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="was not written: 5 steps were trained, the profile needs 8"):
        fit(hotlap.Profile(tmp_path / "trace.json", wait=4, warmup=1, active=3), 5)
    assert not list(tmp_path.iterdir())


def test_a_fit_that_fails_while_it_is_recorded_leaves_the_profiler_off(tmp_path: Path) -> None:
    class Fails(hotlap.Profile):
        def on_train_batch_start(
            self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
        ) -> None:
            if batch_idx == 5:
                raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        fit(Fails(tmp_path / "trace.json", wait=4, warmup=1, active=5), 12)
    assert not torch.autograd._profiler_enabled() and not list(tmp_path.iterdir())


def test_a_schedule_that_records_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="active >= 1"):
        hotlap.Profile("trace.json", active=0)


def test_training_of_our_own_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "train.json.gz"
    assert (
        status(
            [
                "profile",
                "mlp",
                "--mode",
                "train",
                "--wait",
                "3",
                "--warmup",
                "1",
                "--active",
                "2",
                "-o",
                str(file),
            ]
        )
        == 0
    )
    assert "mlp/eager/fp32/b" in capsys.readouterr().out
    result = review.review(file)
    names = {result.trace.names[code] for code in result.trace.notes.name.tolist()}
    assert len(result.facts.steps) == 2 and any(name.startswith("Optimizer.step#AdamW") for name in names)


@pytest.mark.parametrize("name", ["p.json", "p.json.gz"])
@pytest.mark.parametrize("content", ['{"traceEvents": []}', '[{"ph": "X"}]', "  \n[]"])
def test_seal_puts_the_section_in_front(name: str, content: str, tmp_path: Path) -> None:
    raw = tmp_path / "raw.json"
    raw.write_text(content)
    profiling.seal(raw, tmp_path / name, {"case": "any"})
    written = (tmp_path / name).read_bytes()
    document = json.loads(gzip.decompress(written) if name.endswith("gz") else written)
    assert document["hotlap"] == {"schema": 1, "case": "any"} and isinstance(document["traceEvents"], list)
    assert not raw.exists()


def test_a_full_disk_leaves_no_half_file(tmp_path: Path) -> None:
    raw = tmp_path / "raw.json"
    raw.write_text("{}")
    with pytest.raises(FileNotFoundError):
        profiling.seal(raw, tmp_path / "no" / "p.json", {})
    assert raw.exists() and [path.name for path in tmp_path.iterdir()] == ["raw.json"]


@pytest.mark.parametrize(
    "section",
    [
        1,
        [],
        {"overhead": 3},
        {"overhead": {"plain_s": 0, "profiled_s": 1, "calls": [1, 2]}},
        {"peaks": {"flop_rate": "x"}},
        {"case": "\x1b[31m"},
    ],
)
def test_a_section_that_nobody_here_wrote_is_survived(
    section: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "odd.json"
    path.write_bytes(
        msgspec.json.encode(
            {
                "hotlap": section,
                "traceEvents": [
                    {"ph": "X", "cat": "cpu_op", "name": "a", "ts": 1, "dur": 1, "pid": 0, "tid": 0}
                ],
            }
        )
    )
    result = review.review(path)
    for line in text.lines(result):
        printer.line(line)
    assert "\x1b" not in capsys.readouterr().out
    assert kineto.read(path).events == 1
