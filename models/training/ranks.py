"""Several processes that train one module together, each on a share of every batch.

Where the trainer has more than one device, the process that was started is rank 0. It makes the
run's folder, starts the others (hotlap.models.rank) with its own settings, and alone writes and
reports. Lightning's launcher is not asked: `ddp` would run the command line again, and so make
another run; `ddp_spawn` and `ddp_fork` train in children and bring back only the weights.

The pipe to a rank's standard input is open as long as rank 0 lives, and it ends with it, by
whatever signal; rank 0 stops in one line where one of the others ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import lightning.pytorch as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment, find_free_network_port
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from ...perf.terms.reasons import Misuse
from .. import runs
from .guards import TrainingStopped

# What a rank says once it has built the training's parts.
READY = b"ready\n"
# How long a rank may take to end, once it should or once another has noticed that it is gone, s.
ENDING_S = 10.0


class TrainingRank(LightningEnvironment):
    """Which of the processes this one is, and where rank 0 is met."""

    def __init__(self, number: int = 0, port: int | None = None) -> None:
        """port: of rank 0 on this machine; None: a free one."""
        super().__init__()
        self.number = number
        self._main_port = port or find_free_network_port()
        self.set_global_rank(number)

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return "127.0.0.1"

    def local_rank(self) -> int:
        return self.number

    def node_rank(self) -> int:
        return 0


class Peers:
    """The other ranks, as rank 0 sees them."""

    def __init__(self, folder: Path, words: Sequence[str], test: bool, port: int, count: int) -> None:
        """Starts them. words: the settings that this training was started with. test: whether the
        test split is scored. count: of all.
        """
        self.folder, self.count = folder, count
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        for number in range(1, count):
            self.log(number).parent.mkdir(exist_ok=True)
            with self.log(number).open("wb") as log:
                self.processes[number] = subprocess.Popen(
                    [sys.executable, "-P", "-m", "hotlap.models.rank"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                    start_new_session=True,  # Ctrl-C is rank 0's
                )
            asked = {"folder": str(folder), "words": list(words), "test": test}
            asked |= {"number": number, "port": port}
            with suppress(BrokenPipeError):
                pipe = self._pipe(number)
                pipe.write(json.dumps(asked).encode() + b"\n")
                pipe.flush()

    def log(self, number: int) -> Path:
        """What a rank printed."""
        return self.folder / runs.LOGS / f"rank-{number}.log"

    def _pipe(self, number: int) -> IO[bytes]:
        pipe = self.processes[number].stdin
        assert pipe is not None
        return pipe

    def await_ready(self) -> None:
        """Returns once all have built their parts. Raises TrainingStopped where one has ended."""
        for process in self.processes.values():
            assert process.stdout is not None
            if process.stdout.readline() != READY:
                self.refuse_ended()

    def refuse_ended(self) -> None:
        """Raises TrainingStopped where one has ended, or does so soon."""
        deadline = time.monotonic() + ENDING_S
        while time.monotonic() < deadline:
            for number, process in self.processes.items():
                if (status := process.poll()) is not None:
                    *_, last = ["", *self.log(number).read_text(errors="replace").strip().splitlines()]
                    how = f"was killed by signal {-status}" if status < 0 else f"ended: {last}"
                    raise TrainingStopped(
                        f"rank {number} of {self.count} {how}; it printed {self.log(number)}"
                    )
            time.sleep(0.05)

    def end(self, at_once: bool) -> None:
        """Ends them: they are waited for, unless at once, as long as an orderly end takes."""
        for process in self.processes.values():
            if not at_once:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(ENDING_S)
            process.kill()
            process.wait()
        for process in self.processes.values():
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()


@contextmanager
def together(
    trainer: L.Trainer, rank: TrainingRank, folder: Path, words: Sequence[str], test: bool
) -> Iterator[None]:
    """Has the other ranks train along while it is open, where the trainer has several devices.

    words: the settings that this training was started with. test: whether the test split is scored.
    Raises Misuse for ways to distribute that it does not know, TrainingStopped where another rank
    has ended.
    """
    if trainer.world_size == 1:
        yield
        return
    launcher: Any = trainer.strategy.launcher
    if not isinstance(trainer.strategy, DDPStrategy) or not isinstance(launcher, _SubprocessScriptLauncher):
        raise Misuse("several devices train together by trainer.strategy=ddp here, and by no other")
    if trainer.num_nodes > 1 or TorchElasticEnvironment.detect():
        raise Misuse(
            "hotlap starts the processes of a training itself, on one machine; leave trainer.num_nodes and"
            " torchrun out and set trainer.devices"
        )
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # or Lightning changes how many there are
    peers = None
    if rank.number == 0:
        peers = Peers(folder, words, test, rank.main_port, trainer.world_size)
    orderly = False
    try:
        if peers is None:
            yield
        else:
            peers.await_ready()
            try:
                yield
            except RuntimeError as error:
                if isinstance(error, torch.distributed.DistError) or "gloo" in str(error):
                    peers.refuse_ended()
                raise
        orderly = True
    finally:
        if peers is not None:
            peers.end(at_once=not orderly)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
