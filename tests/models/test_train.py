"""Training: repeatable to the bit, resumable after a kill, leaving the process as it was."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hotlap.models import runs
from hotlap.models.checkpoint import read
from hotlap.models.data.breast_cancer import BreastCancer
from hotlap.models.train import train

EPOCHS = 4
SCORES = {"accuracy", "f1_macro", "calibration_error", "f1_worst"}

CHILD = """
import json, os, signal, sys

import sklearn.datasets
from hotlap.models.data.digits import Digits
from hotlap.models.nets.resnet import ResNet18
from hotlap.models.train import train

Digits.samples_per_epoch = 64


def run(epochs, deadly, resume):
    def report(line):
        print(line, flush=True)
        if f"epoch {deadly} of" in line:
            train_batch = ResNet18.training_step

            def dying(self, batch, batch_idx):
                if batch_idx == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                return train_batch(self, batch, batch_idx)

            ResNet18.training_step = dying

    train("resnet", None if resume else epochs, resume="latest" if resume else None, report=report)


# Each training is a process of its own, forked from one that has imported what they need.
for line in sys.stdin:
    folder, printed, epochs, deadly, resume = json.loads(line)
    child = os.fork()
    if child == 0:
        os.environ["HOTLAP_RUNS"] = folder
        os.dup2(os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        run(epochs, deadly, resume)
        sys.stdout.flush()
        os._exit(0)  # at an orderly end, threads that a fork does not have are waited for
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read(folder / "last.ckpt")["state_dict"]


def assert_same_weights(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    different = [key for key, value in ours.items() if not torch.equal(value, theirs[key])]
    assert not different


def silent(line: str) -> None:
    pass


def test_same_seed_same_bits_other_seed_other_weights() -> None:
    first, second, third = (train("mlp", epochs=2, seed=seed, report=silent) for seed in (3, 3, 4))
    assert_same_weights(first.folder, second.folder)
    assert (first.validation, first.test) == (second.validation, second.test)
    key = "layers.0.weight"
    assert not torch.equal(weights(first.folder)[key], weights(third.folder)[key])


@pytest.fixture
def trained() -> Iterator[Callable[..., int]]:
    """Trains a small resnet in a process of its own and returns how that ended."""
    command = [sys.executable, "-W", "ignore", "-c", CHILD]
    # OpenBLAS's threads: a process with threads cannot be forked safely.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as forks:

        def run(runs_root: Path, printed: Path, deadly: str = "never", resume: bool = False) -> int:
            assert forks.stdin is not None and forks.stdout is not None
            forks.stdin.write(json.dumps([str(runs_root), str(printed), EPOCHS, deadly, resume]) + "\n")
            forks.stdin.flush()
            return int(forks.stdout.readline())

        yield run


@pytest.mark.slow
def test_a_killed_training_ends_as_an_uninterrupted_one(tmp_path: Path, trained: Callable[..., int]) -> None:
    """The metrics and every weight must agree, with augmented data and batch norm.

    The training is killed with SIGKILL in the middle of epoch 3.
    """
    lines = {name: tmp_path / f"{name}.txt" for name in ("whole", "killed")}
    assert trained(tmp_path / "whole", lines["whole"]) == 0
    assert trained(tmp_path / "killed", lines["killed"], deadly="2") == -signal.SIGKILL
    folder = next((tmp_path / "killed" / "train").iterdir())
    assert read(folder / "last.ckpt")["hotlap"]["epochs_trained"] == 2
    assert not (folder / "metrics.json").exists()
    assert trained(tmp_path / "killed", lines["killed"], resume=True) == 0
    # The same lines, no epoch twice and none left out.
    assert lines["killed"].read_text() == lines["whole"].read_text() != ""
    other = next((tmp_path / "whole" / "train").iterdir())
    assert_same_weights(folder, other)
    ours, theirs = (json.loads((path / "metrics.json").read_text()) for path in (folder, other))
    assert (ours["validation"], ours["test"]) == (theirs["validation"], theirs["test"])


def test_a_run_killed_before_its_first_checkpoint_starts_again() -> None:
    folder = runs.create(runs.Settings("mlp", seed=5, epochs=2))
    resumed = train("mlp", resume="latest", report=silent)
    assert resumed.folder == folder
    assert_same_weights(folder, train("mlp", epochs=2, seed=5, report=silent).folder)


def test_killed_between_last_epoch_and_metrics() -> None:
    run = train("mlp", epochs=2, report=silent)
    before = weights(run.folder)
    (run.folder / "metrics.json").unlink()
    lines: list[str] = []
    again = train("mlp", resume=run.id, report=lines.append)
    assert lines == []  # nothing was left to train
    assert (again.validation, again.test) == (run.validation, run.test)
    assert all(torch.equal(value, before[key]) for key, value in weights(run.folder).items())


def test_checkpoint_and_metrics_say_where_they_come_from() -> None:
    lines: list[str] = []
    run = train("mlp", epochs=2, seed=7, report=lines.append)
    first, second = lines
    assert first.startswith("mlp: epoch 1 of 2, loss ") and "validation accuracy 0." in second
    content = read(run.checkpoint)
    assert content["hyper_parameters"] == {"features": 30, "width": 64, "classes": 2}
    story = content["hotlap"]
    assert story["class"] == "hotlap.models.nets.mlp:MLP" and story["seed"] == 7 and story["epochs"] == 2
    assert set(story["versions"]) == {"python", "torch", "lightning"}
    assert story["versions"]["torch"] == torch.__version__
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["data_hash"] == story["data_hash"] and len(story["data_hash"]) == 64
    assert metrics["test"] == run.test and set(run.test) == SCORES
    assert metrics["seconds"] > 0
    names = {path.name for path in run.folder.iterdir()} - {runs.UNCOMMITTED, runs.LOCK}
    described = {"settings.json", "config.yaml", "environment.json"}
    evaluations = {"evaluation_validation.json", "evaluation_test.json"}
    assert names == described | evaluations | {"last.ckpt", "checkpoints", "logs", "metrics.json"}
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["best.ckpt"]


def test_the_test_split_is_used_once_and_last(monkeypatch: pytest.MonkeyPatch) -> None:
    uses: list[str] = []
    original = BreastCancer.test_dataloader
    monkeypatch.setattr(BreastCancer, "test_dataloader", lambda self: uses.append("test") or original(self))
    train("mlp", epochs=2, report=uses.append)
    assert uses[-1] == "test" and uses.count("test") == 1


def test_training_leaves_the_process_as_it_was() -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = (random.random(), np.random.rand(), torch.rand(1))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    threads = torch.get_num_threads()
    environment = dict(os.environ)
    ctrl_c = signal.getsignal(signal.SIGINT)
    level = logging.getLogger("lightning.pytorch").level
    train("mlp", epochs=1, report=silent)
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert dict(os.environ) == environment
    assert signal.getsignal(signal.SIGINT) == ctrl_c
    assert logging.getLogger("lightning.pytorch").level == level


def test_lightning_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    train("mlp", epochs=1, report=silent)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mlpp"}, "did you mean mlp"),
        ({"name": "mlp", "epochs": 0}, "at least 1"),
        ({"name": "mlp", "resume": "latest"}, "no unfinished run"),
        ({"name": "mlp", "resume": "mlp-20260101-000000-0000"}, "there is no run"),
    ],
)
def test_requests_that_cannot_be_met(arguments: dict, message: str, runs_folder: Path) -> None:
    with pytest.raises(ValueError, match=message) as error:
        train(**arguments)
    assert "\n" not in str(error.value)
    assert not runs_folder.exists()


def test_runs_that_cannot_go_on() -> None:
    folder = runs.create(runs.Settings("mlp", seed=0, epochs=2))
    for arguments, message in (
        ({"name": "vit", "resume": folder.name}, "trains mlp, not vit"),
        ({"name": "mlp", "resume": "latest", "epochs": 3}, "started with epochs 2"),
        ({"name": "mlp", "resume": "latest", "seed": 1}, "started with seed 0"),
    ):
        with pytest.raises(runs.NotResumable, match=message):
            train(**arguments)
    (folder / "metrics.json").write_text("{}")
    with pytest.raises(runs.NotResumable, match="is finished"):
        train("mlp", resume=folder.name)


def test_resuming_on_other_data_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    run = train("mlp", epochs=1, report=silent)
    (run.folder / "metrics.json").unlink()
    original = BreastCancer.read
    monkeypatch.setattr(
        BreastCancer, "read", lambda self: {**original(self), "rows": original(self)["rows"] + 1}
    )
    with pytest.raises(ValueError, match="other data"):
        train("mlp", resume=run.id, report=silent)
