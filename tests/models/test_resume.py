"""A training killed within its epochs ends as one that was not, to the bit (bench/resumes.py)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.resumes import BATCHES, EVERY, MODULE, Trainings, arguments, killed, same, tensors
from hotlap.models import checkpoint
from hotlap.models.train import TrainingFailed, train
from hotlap.models.training.position import SameBatches


@pytest.fixture(scope="module")
def trainings() -> Iterator[Trainings]:
    with Trainings() as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_kills_at_random_steps_change_no_tensor(workers: int, trainings: Trainings, tmp_path: Path) -> None:
    random.seed(workers)
    story = killed(trainings, tmp_path, workers, kills=4)
    assert story.different == [] and story.torn == 0
    assert 0 < story.most_lost <= EVERY


def interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch, *settings: str) -> list[str]:
    """Trains whole, and again with an exception in the middle of epoch 2 and a resume; returns the
    names of the tensors that differ.
    """
    import lightning.pytorch as L

    (folder / "resumed_net.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(folder)
    asked = arguments(0) | {"name": "resumed_net:Net", "data": "resumed_net:Data"}
    asked["overrides"] = [*asked["overrides"], *settings]
    contents = [checkpoint.read(train(**asked, report=lambda line: None).checkpoint)]
    save = L.Trainer.save_checkpoint

    def failing(self: L.Trainer, *rest: object, **options: object) -> None:
        save(self, *rest, **options)  # type: ignore[arg-type]
        if self.current_epoch == 1 and 0 < self.fit_loop.batch_idx < BATCHES - EVERY:
            raise OSError("no more")

    with monkeypatch.context() as planted:
        planted.setattr(L.Trainer, "save_checkpoint", failing)
        with pytest.raises(TrainingFailed, match="no more"):
            train(**asked, report=lambda line: None)
    contents.append(checkpoint.read(train(resume="latest", report=lambda line: None).checkpoint))
    ours, theirs = map(tensors, contents)
    return sorted(name for name in ours if not same(ours[name], theirs.get(name)))


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("trainer.accumulate_grad_batches=4",),
        ("trainer.val_check_interval=0.25",),
        ("trainer.precision=16-mixed",),
        ("trainer.callbacks=[{class_path: EMAWeightAveraging}]",),
    ],
    ids=["plain", "accumulated", "validated within", "fp16", "averaged"],
)
def test_a_training_that_stopped_within_an_epoch_goes_on_as_if_it_had_not(
    settings: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert interrupted(tmp_path, monkeypatch, *settings) == []


def test_a_loader_that_begins_again_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The defect planted: what Lightning does by itself."""
    monkeypatch.setattr(SameBatches, "load_state_dict", lambda self, state: None)
    assert any(name.startswith("state_dict") for name in interrupted(tmp_path, monkeypatch))
