"""Does a training that is killed again and again end as one that was not?

    python -m bench.resumes [--kills 20] [--workers 0,2]
        kills a training with SIGKILL at random moments, resumes it each time, and compares all
        tensors of its last checkpoint with an uninterrupted run's; writes docs/results/resumes.json
    python -m bench.resumes --table docs/results/resumes.json
        the table of docs/training.md

The module has dropout, batch norm and a schedule, the data are shuffled and each sample is changed
at random. tests/models/test_resume.py does it with fewer kills.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).resolve().parent.parent / "docs" / "results" / "resumes.json"
# 1 (0.1.0): first version.
SCHEMA = 1
# Optimizer steps between two checkpoints of these trainings, and how long they are.
EVERY, EPOCHS, BATCHES = 7, 3, 40
MODULE = """
import os

import lightning.pytorch as L
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Net(L.LightningModule):
    def __init__(self, width: int = 8, steps_file: str = ""):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 2)
        )

    def forward(self, rows):
        return self.net(rows)

    def training_step(self, batch, batch_idx):
        with open(self.hparams.steps_file, "a") as file:
            file.write(".")
        rows, labels = batch
        return nn.functional.cross_entropy(self(rows), labels)

    def validation_step(self, batch, batch_idx):
        rows, labels = batch
        self.log("val_loss", nn.functional.cross_entropy(self(rows), labels))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), 1e-2)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Rows(Dataset):
    def __init__(self, count):
        self.rows = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
        self.labels = (self.rows.sum(1) > 0).long()

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index] + 0.1 * torch.randn(4), self.labels[index]


class Data(L.LightningDataModule):
    def __init__(self, batches: int = 40, workers: int = 0):
        super().__init__()
        self.batches, self.workers = batches, workers

    def train_dataloader(self):
        return DataLoader(Rows(8 * self.batches), 8, shuffle=True, num_workers=self.workers)

    def val_dataloader(self):
        return DataLoader(Rows(64), 32)
"""
# Trainings are forked from a process that has imported what they need.
FORKS = """
import json, os, sys

import lightning.pytorch, torch, tensorboard
from hotlap.models.train import train

for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(asked["folder"])
        os.environ["HOTLAP_RUNS"] = "runs"
        train(report=print, **asked["arguments"])
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Story(NamedTuple):
    """What became of one training."""

    workers: int
    kills: int
    # Steps that had to be taken again after a kill, at most.
    most_lost: int
    # Names of the tensors that differ from the uninterrupted run's.
    different: list[str]
    # Checkpoints that could not be read after a kill.
    torn: int


class Trainings:
    """Runs trainings, each in a process of its own. Close it with `with`."""

    def __enter__(self) -> Trainings:
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self.forks = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", FORKS],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self.forks.stdin is not None and self.forks.stdout is not None
        self.forks.stdin.close()
        self.forks.wait()
        self.forks.stdout.close()

    def run(self, folder: Path, arguments: dict[str, Any], kill_after_steps: int | None = None) -> int:
        """Returns the exit status of a training in the folder. kill_after_steps: kills it at a
        random moment of the step after so many.
        """
        assert self.forks.stdin is not None and self.forks.stdout is not None
        self.forks.stdin.write(json.dumps({"folder": str(folder), "arguments": arguments}) + "\n")
        self.forks.stdin.flush()
        pid = self.read_number()
        if kill_after_steps is not None:
            while steps(folder) < kill_after_steps and Path(f"/proc/{pid}").exists() and not zombie(pid):
                time.sleep(0.001)
            time.sleep(random.uniform(0, 0.02))
            os.killpg(pid, signal.SIGKILL)
        return self.read_number()

    def read_number(self) -> int:
        """Returns the next line of ours; those between are of the trainings."""
        assert self.forks.stdout is not None
        while not (line := self.forks.stdout.readline()).strip().lstrip("-").isdecimal():
            if not line:
                raise SystemExit("the process that trains has ended")
        return int(line)


def zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def steps(folder: Path) -> int:
    """Returns how many steps were begun in this folder."""
    path = folder / "steps"
    return path.stat().st_size if path.exists() else 0


def arguments(workers: int) -> dict[str, Any]:
    settings = [f"trainer.max_epochs={EPOCHS}", f"checkpoint_every={EVERY}", "threads=1", "seed_everything=3"]
    settings += ["model.steps_file=steps", f"data.workers={workers}", f"data.batches={BATCHES}"]
    return {"name": "killed_net:Net", "data": "killed_net:Data", "overrides": settings}


def killed(trainings: Trainings, folder: Path, workers: int, kills: int) -> Story:
    """Trains once without and once with kills, at random steps in the order of time."""
    from hotlap.models import checkpoint

    whole, broken = folder / f"whole-{workers}", folder / f"broken-{workers}"
    for each in (whole, broken):
        each.mkdir()
        (each / "killed_net.py").write_text(MODULE)
    if trainings.run(whole, arguments(workers)):
        raise SystemExit(f"the uninterrupted training failed in {whole}")
    total = EPOCHS * BATCHES
    moments = sorted(random.sample(range(1, total - 1), kills))
    most_lost, torn, before = 0, 0, 0
    asked = arguments(workers)
    for moment in moments:
        # Steps that are taken again are begun again.
        begun = steps(broken)
        status = trainings.run(broken, asked, begun + moment - before)
        if status != -signal.SIGKILL:
            raise SystemExit(f"it ended by itself ({status}) before it was killed at step {moment}")
        (run,) = (broken / "runs" / "train").iterdir()
        asked = {"resume": run.name}
        reached = before + steps(broken) - begun
        before = 0
        if (run / "last.ckpt").exists():
            try:
                before = checkpoint.read(run / "last.ckpt")["global_step"]
            except ValueError:
                torn += 1
                break
        most_lost = max(most_lost, reached - before)
        if before + 1 >= total:
            break
    if trainings.run(broken, asked):
        raise SystemExit(f"the killed training did not end in {broken}")
    runs = [next((each / "runs" / "train").iterdir()) for each in (whole, broken)]
    ours, theirs = (tensors(checkpoint.read(run / "last.ckpt")) for run in runs)
    different = [name for name in ours.keys() | theirs.keys() if not same(ours.get(name), theirs.get(name))]
    return Story(workers, kills, most_lost, sorted(different), torn)


def tensors(content: Any, name: str = "") -> dict[str, Any]:
    """Returns the tensors and numbers of a checkpoint's weights, optimizer and schedule."""
    if not name:
        parts = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch")
        return {key: value for part in parts for key, value in tensors(content[part], part).items()}
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, (list, tuple)):
        items = enumerate(content)
    else:
        return {name: content}
    return {key: value for at, part in items for key, value in tensors(part, f"{name}.{at}").items()}


def same(a: Any, b: Any) -> bool:
    import torch

    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return type(a) is type(b) and bool(a == b)


def table(content: dict[str, Any]) -> str:
    lines = [
        f"{content['hardware']}. A checkpoint every {EVERY} steps, {EPOCHS} epochs of {BATCHES} steps.",
        "",
        "| loader workers | kills | steps lost, at most | torn checkpoints | tensors that differ |",
        "|---|---|---|---|---|",
    ]
    for each in content["trainings"]:
        cells = (each["workers"], each["kills"], each["most_lost"], each["torn"], len(each["different"]))
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", default="0,2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--table", type=Path, metavar="FILE")
    asked = parser.parse_args()
    if asked.table:
        print(table(json.loads(asked.table.read_text())), end="")
        return
    from hotlap.perf.machine import survey

    random.seed(asked.seed)
    stories = []
    with tempfile.TemporaryDirectory() as folder, Trainings() as trainings:
        for workers in map(int, asked.workers.split(",")):
            stories.append(killed(trainings, Path(folder), workers, asked.kills))
            print(stories[-1], flush=True)
    content = {
        "schema": SCHEMA,
        "hardware": survey.collect(1, "default").hardware,
        "trainings": [story._asdict() for story in stories],
    }
    asked.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
