"""A training that goes wrong: stopped before it harms its weights, with the batch that did it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from hotlap.models import runs
from hotlap.models.checkpoint import read
from hotlap.models.data.breast_cancer import BreastCancer
from hotlap.models.nets.mlp import MLP
from hotlap.models.train import train
from hotlap.models.training.guards import BATCH, Guard, TrainingFailed, TrainingStopped

EPOCHS = 2


def silent(line: str) -> None:
    pass


def stopped(**arguments: object) -> tuple[str, Path]:
    with pytest.raises(TrainingStopped) as error:
        train("mlp", epochs=EPOCHS, report=silent, **arguments)
    folder = runs.newest("mlp", finished=False)
    assert folder is not None
    return str(error.value), folder


@pytest.mark.parametrize(
    ("factor", "words"), [(float("nan"), "the loss is nan"), (1e4, "times the latest")], ids=["nan", "spike"]
)
def test_a_loss_that_went_wrong_stops_with_its_batch_and_the_run_goes_on(
    factor: float, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train("mlp", epochs=EPOCHS, report=silent)
    step = MLP.training_step

    def wrong(self: MLP, batch: tuple, batch_idx: int) -> torch.Tensor:
        bad = self.current_epoch == 1 and batch_idx == 3
        return step(self, batch, batch_idx) * (factor if bad else 1.0)

    with monkeypatch.context() as planted:
        planted.setattr(MLP, "training_step", wrong)
        message, folder = stopped()
    assert words in message and "at batch 3 of epoch 2" in message and "\n" not in message
    rows, labels = torch.load(folder / BATCH, weights_only=True)
    assert rows.shape == (32, 30) and labels.shape == (32,)
    again = train("mlp", resume=folder.name, report=silent)
    ours, theirs = (read(run.checkpoint)["state_dict"] for run in (whole, again))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_gradient_that_is_none_of_a_loss_that_is_fine_changes_no_weight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The root of 0 is 0, and has no slope."""
    step = MLP.training_step

    def rooted(self: MLP, batch: tuple, batch_idx: int) -> torch.Tensor:
        root = (0 * self.layers[0].weight.sum()).sqrt() if self.current_epoch else 0.0
        return step(self, batch, batch_idx) + root

    monkeypatch.setattr(MLP, "training_step", rooted)
    message, folder = stopped()
    assert "the loss is finite and its gradient is nan at batch 0 of epoch 2" in message
    assert all(value.isfinite().all() for value in read(folder / runs.CHECKPOINT)["state_dict"].values())


def test_spikes_are_measured_against_the_latest_and_may_be_allowed() -> None:
    guard = Guard(Path(), 100.0)
    assert [guard.judged(loss) for loss in (1.0, 900.0, 1.0)] == ["", "", ""]  # too few to say
    assert [guard.judged(1.0) for _ in range(10)] == [""] * 10
    assert guard.judged(99.0) == "" and "150 times the latest" in guard.judged(150.0)
    again = Guard(Path(), None)
    again.load_state_dict(guard.state_dict())
    assert again.judged(1e9) == "" and again.judged(float("inf")) == "the loss is inf"


@pytest.mark.parametrize(
    ("loader", "words"),
    [("train_dataloader", "training split is empty"), ("val_dataloader", "validation split is empty")],
)
def test_an_empty_split_is_said(loader: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = TensorDataset(torch.empty(0, 30), torch.empty(0, dtype=torch.long))
    monkeypatch.setattr(BreastCancer, loader, lambda self: DataLoader(empty, 32))
    message, folder = stopped()
    assert words in message and not (folder / runs.METRICS).exists()


# torch's word on a schedule whose optimizer has left out the first step.
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")
def test_fp16_without_any_scale_that_helps_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    step = MLP.training_step
    monkeypatch.setattr(MLP, "training_step", lambda *each: step(*each) * float("inf"))
    message, _ = stopped(precision="fp16")
    assert "at no scale of the loss are the gradients finite" in message


def test_what_the_module_raises_is_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: MLP, batch: tuple, batch_idx: int) -> torch.Tensor:
        raise ValueError("their own mistake")

    monkeypatch.setattr(MLP, "training_step", broken)
    with pytest.raises(TrainingFailed, match="ValueError: their own mistake") as error:
        train("mlp", epochs=1, report=silent)
    assert isinstance(error.value.__cause__, ValueError)
