"""A budget for the disk removes the oldest checkpoints, and none that is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hotlap.models import checkpoint
from hotlap.models.training.budget import size_bytes
from hotlap.models.training.guards import TrainingFailed
from hotlap.models.training.keeping import Keeping

Tiny = Callable[..., Any]
PERIODIC = (
    "{class_path: ModelCheckpoint, init_args: {filename: '{step}', every_n_train_steps: 2, save_top_k: -1}}"
)
# The first is the best: nothing falls below it by 10.
BEST = "{class_path: ModelCheckpoint, init_args: {filename: best, monitor: step, mode: min}}"
CALLBACKS = f"trainer.callbacks=[{PERIODIC},{BEST}]"


def names(run: Any) -> set[str]:
    return {path.stem for path in (run.folder / "checkpoints").iterdir()}


def taken(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.ckpt"))


def test_the_oldest_go_and_the_best_stays(tiny: Tiny) -> None:
    run, lines, _ = tiny(CALLBACKS)
    every = {f"step={step}" for step in range(2, 17, 2)}
    assert names(run) == {"best", *every} and len(lines) == 2
    size = run.checkpoint.stat().st_size
    within, lines, _ = tiny(CALLBACKS, f"disk_budget={int(5.5 * size)}B")
    assert names(within) == {"best", "step=12", "step=14", "step=16"}
    assert taken(within.folder) <= 5.5 * size and len(lines) == 2
    assert checkpoint.read(within.folder / "checkpoints" / "best.ckpt")["global_step"] == 8


def test_a_budget_below_what_is_needed_is_told_once(tiny: Tiny) -> None:
    run, lines, _ = tiny(CALLBACKS, "disk_budget=1kB")
    assert {"best", "step=16"} == names(run) and run.checkpoint.exists()
    (line,) = [line for line in lines if "disk_budget" in line]
    assert line.startswith("the last and the best checkpoints take ") and "1000 B; training goes on" in line


def test_a_run_is_resumed_with_another_budget(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = Keeping.keep

    def failing(self: Keeping, trainer: Any) -> None:
        keep(self, trainer)
        raise OSError("no more")

    with monkeypatch.context() as planted:
        planted.setattr(Keeping, "keep", failing)
        with pytest.raises(TrainingFailed, match="no more"):
            tiny(CALLBACKS)
    run, _, _ = tiny("disk_budget=1kB", resume="latest")
    assert names(run) == {"best", "step=16"}


def test_sizes() -> None:
    sizes = [size_bytes(text) for text in ("2GB", "1.5 MiB", "10B")]
    assert sizes == [2_000_000_000, 1_572_864, 10]
