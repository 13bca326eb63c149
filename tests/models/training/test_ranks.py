"""Two processes that train together: as one with the whole batch, and no process left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, SequentialSampler, TensorDataset

from bench.resumes import same, tensors
from hotlap.models import checkpoint
from hotlap.models.data.order import EpochOrder
from hotlap.models.train import train
from hotlap.models.training.guards import TrainingStopped
from hotlap.models.training.shares import Share, shared
from hotlap.perf.terms.reasons import Misuse

# Losses of two processes and of one differ by the order of sums alone.
RELATIVE = 1e-6
# A small gpt that writes what it saw of each step to a file, and one whose ranks all train on the
# part of rank 0.
NET = """
import json
import os
import signal
import time

import torch
from torch import nn
from hotlap.models.nets.gpt import GPT
from hotlap.models.training.shares import Share


class Small(GPT):
    def __init__(self, pause_s: float = 0.0, fault: str = ""):
        super().__init__(width=32, depth=1, context=128)
        self.save_hyperparameters()
        self.dropout = nn.Dropout(0.5)

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        time.sleep(self.hparams.pause_s)
        seen = {"pid": os.getpid(), "loss": loss.item(), "tokens": batch[0].sum().item()}
        seen["drawn"] = self.dropout(torch.ones(64)).tolist()
        with open(f"steps-{self.global_rank}", "a") as file:
            file.write(json.dumps(seen) + "\\n")
        if self.global_rank == 1 and self.global_step == 3:
            if self.hparams.fault == "raises":
                raise RuntimeError("a fault of this rank alone")
            if self.hparams.fault == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
        return loss


class AllTheSame(Small):
    def setup(self, stage):
        if self.global_rank:
            begin = Share.__init__
            Share.__init__ = lambda share, batches, rank, count: begin(share, batches, 0, count)
"""
DATA = "hotlap.models.data.stdlib_source:StdlibSource"
SETTINGS = (
    "trainer.limit_train_batches=6",
    "trainer.max_epochs=2", "trainer.accelerator=cpu", "trainer.gradient_clip_val=1.0", "threads=1",
    "checkpoint_every=2",
)  # fmt: skip
TWO = ("data.batch_size=8", "trainer.devices=2", "trainer.strategy=ddp")


@contextmanager
def entered(folder: Path) -> Iterator[None]:
    """Has a training of this process take place in a folder, with the networks above."""
    (folder / "ranked_net.py").write_text(NET)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HOTLAP_RUNS", "runs")
        patch.syspath_prepend(str(folder))
        yield
    sys.modules.pop("ranked_net", None)


def trained(folder: Path, *settings: str, net: str = "Small") -> list[str]:
    """Trains to the end and returns what is reported."""
    lines: list[str] = []
    with entered(folder):
        train(f"ranked_net:{net}", data=DATA, overrides=[*SETTINGS, *settings], report=lines.append)
    return lines


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Starts hotlap train in a folder, as a process of its own."""
    (folder / "ranked_net.py").write_text(NET)
    return subprocess.Popen(
        [sys.executable, "-m", "hotlap.perf.cli", "train", *words],
        cwd=folder,
        env={**os.environ, "HOTLAP_RUNS": "runs"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def steps(folder: Path, rank: int) -> list[dict[str, Any]]:
    path = folder / f"steps-{rank}"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_steps(folder: Path, count: int, process: subprocess.Popen[str]) -> list[int]:
    """Waits until both ranks have begun so many; returns the numbers of their latest processes."""
    while min(len(steps(folder, rank)) for rank in (0, 1)) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return [steps(folder, rank)[-1]["pid"] for rank in (0, 1)]


def gone(pid: int) -> bool:
    """Whether a process has ended, or does so within 20 s."""
    end = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training by one process."""
    folder = tmp_path_factory.mktemp("alone")
    trained(folder, "data.batch_size=16")
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one by two processes, with the same samples a step."""
    folder = tmp_path_factory.mktemp("two")
    assert len(trained(folder, *TWO)) == 2  # a line an epoch: rank 0's
    return folder


def means(folder: Path) -> list[float]:
    """The loss of each step over both ranks."""
    return [(a["loss"] + b["loss"]) / 2 for a, b in zip(steps(folder, 0), steps(folder, 1), strict=True)]


def run_of(folder: Path) -> Path:
    (run,) = (folder / "runs" / "train").iterdir()
    return run


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_whole_batch(alone: Path, two: Path) -> None:
    expected, first, second = steps(alone, 0), steps(two, 0), steps(two, 1)
    assert len(expected) == 12
    assert means(two) == pytest.approx([step["loss"] for step in expected], rel=RELATIVE, abs=0)
    tokens = [a["tokens"] + b["tokens"] for a, b in zip(first, second, strict=True)]
    assert tokens == [step["tokens"] for step in expected]
    assert first[0]["pid"] != second[0]["pid"] and first[0]["drawn"] != second[0]["drawn"]
    metrics = [json.loads((run_of(folder) / "metrics.json").read_text()) for folder in (alone, two)]
    for split in ("validation", "test"):
        assert metrics[0][split] == pytest.approx(metrics[1][split], rel=1e-5)


@pytest.mark.slow
def test_rank_0_alone_writes(alone: Path, two: Path) -> None:
    files = [
        sorted(
            re.sub(r"tfevents.*", "", str(path.relative_to(run_of(folder))))
            for path in run_of(folder).rglob("*")
        )
        for folder in (alone, two)
    ]
    files[1].remove("logs/rank-1.log")
    assert files[0] == files[1]


@pytest.mark.slow
def test_ranks_that_train_on_the_same_samples_are_seen(alone: Path, tmp_path: Path) -> None:
    """The defect planted."""
    trained(tmp_path, *TWO, "trainer.max_epochs=1", net="AllTheSame")
    losses = [step["loss"] for step in steps(alone, 0)][:6]
    assert means(tmp_path) != pytest.approx(losses, rel=RELATIVE, abs=0)


@pytest.mark.slow
def test_stopped_and_killed_two_end_with_the_same_bits(two: Path, tmp_path: Path) -> None:
    """By Ctrl-C within the first epoch, and by a kill of rank 0 within the second."""
    asked = ("ranked_net:Small", "--data", DATA, *SETTINGS, *TWO, "model.pause_s=0.1")
    process = started(tmp_path, *asked)
    _, second = wait_for_steps(tmp_path, 3, process)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume Small-" in out and error.strip() == ""
    assert gone(second)
    process = started(tmp_path, "--resume")
    first, second = wait_for_steps(tmp_path, len(steps(tmp_path, 0)) + 5, process)
    os.kill(first, signal.SIGKILL)
    process.communicate(timeout=60)
    assert first == process.pid and gone(second)  # though nobody has killed it
    with entered(tmp_path):
        train(resume="latest", report=lambda line: None)
    ours, theirs = (tensors(checkpoint.read(run_of(each) / "last.ckpt")) for each in (two, tmp_path))
    assert [name for name in ours if not same(ours[name], theirs.get(name))] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "message"),
    [("dies", "was killed by signal 9"), ("raises", "ended: RuntimeError: a fault of this rank alone")],
)
def test_a_rank_that_ends_stops_the_training_in_one_line(fault: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingStopped) as error:
        trained(tmp_path, *TWO, f"model.fault={fault}")
    assert f"rank 1 of 2 {message}" in str(error.value) and "\n" not in str(error.value)
    assert gone(steps(tmp_path, 1)[0]["pid"])
    assert checkpoint.read(run_of(tmp_path) / "last.ckpt")["global_step"] == 2


def test_other_ways_to_distribute_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=r"by trainer\.strategy=ddp here"):
        trained(tmp_path, *TWO, "trainer.strategy=ddp_spawn")
    with pytest.raises(Misuse, match="on one machine"):
        trained(tmp_path, *TWO, "trainer.num_nodes=2")


@pytest.mark.parametrize(("size", "drop_last"), [(24, False), (29, False), (25, False), (29, True)])
def test_shares_are_together_the_batches_of_one_process(size: int, drop_last: bool) -> None:
    order = EpochOrder(size, size, seed=3)
    batches = BatchSampler(order, 4, drop_last)
    first, second = (list(Share(batches, rank, 2)) for rank in (0, 1))
    together = [a + b for a, b in zip(first, second, strict=True)]
    expected = [batch for batch in BatchSampler(order, 8, drop_last) if len(batch) >= 2]
    assert [batch[: len(each)] for batch, each in zip(expected, together, strict=True)] == together
    assert sum(map(len, expected)) - sum(map(len, together)) <= 1
    assert len(Share(batches, 0, 2)) == len(first)


def test_loaders_that_know_their_rank_are_left() -> None:
    rows = TensorDataset(torch.arange(16.0))
    theirs = DataLoader(rows, 4, sampler=DistributedSampler(rows, num_replicas=2, rank=0))
    assert shared(theirs, 0, 2).batch_sampler is theirs.batch_sampler

    class Own(BatchSampler):
        pass

    own = DataLoader(rows, batch_sampler=Own(SequentialSampler(rows), 4, False))
    assert shared(own, 0, 2).batch_sampler is own.batch_sampler


class Drawing(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.rand(1)


def test_workers_of_two_ranks_draw_apart() -> None:
    loader, drawn = DataLoader(Drawing(), 4, num_workers=1), []
    for rank in (0, 1):
        torch.manual_seed(0)
        drawn.append(torch.cat(list(shared(loader, rank, 2))))
    assert not torch.equal(*drawn)
