"""A run's folder that was moved, and what a ModelCheckpoint's state then says of its files."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from hotlap.models import runs
from hotlap.models.checkpoint import read
from hotlap.models.nets.mlp import MLP
from hotlap.models.train import train
from hotlap.models.training.guards import TrainingFailed
from hotlap.models.training.keeping import moved


def test_paths_of_a_state_follow_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "now" / "Net-20260101-000000-0000"
    before = Path("/elsewhere") / folder.name
    state = {
        "dirpath": str(before / "checkpoints"),
        "best_model_path": str(before / "checkpoints" / "best.ckpt"),
        "last_model_path": "",
        "kth_best_model_path": str(before / "checkpoints" / "best.ckpt"),
        "best_k_models": {str(before / "checkpoints" / "best.ckpt"): 0.5},
    }
    moved(state, folder)
    best = str(folder / "checkpoints" / "best.ckpt")
    assert state == {
        "dirpath": str(folder / "checkpoints"),
        "best_model_path": best,
        "last_model_path": "",
        "kth_best_model_path": best,
        "best_k_models": {best: 0.5},
    }
    theirs = {"dirpath": "/data/models", "best_model_path": "/data/models/best.ckpt"}
    moved(theirs, folder)
    assert theirs["dirpath"] == "/data/models"  # a folder of the user's own stays


def test_the_best_stays_the_best_where_the_runs_were_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores fall from epoch to epoch: the first is the best, before the move and after."""
    monkeypatch.setattr(
        MLP, "score", lambda self, logits, targets: {"accuracy": 1.0 / (1 + self.current_epoch)}
    )
    epoch_end = ModelCheckpoint.on_validation_end

    def failing(self: ModelCheckpoint, trainer: object, module: MLP) -> None:
        epoch_end(self, trainer, module)  # type: ignore[arg-type]
        if module.current_epoch == 2:
            raise OSError("no more")

    with monkeypatch.context() as planted:
        planted.setattr(ModelCheckpoint, "on_validation_end", failing)
        with pytest.raises(TrainingFailed):
            train("mlp", epochs=3, report=lambda line: None)
    runs.root().parent.rename(tmp_path / "moved")
    monkeypatch.setenv("HOTLAP_RUNS", str(tmp_path / "moved"))
    run = train("mlp", resume="latest", report=lambda line: None)
    assert read(run.folder / runs.CHECKPOINTS / "best.ckpt")["epoch"] == 0
