"""What a run logged, over all its sessions."""

from __future__ import annotations

from pathlib import Path

import pytest

from hotlap.models import curves, records, runs
from hotlap.models.train import train
from hotlap.models.training.guards import TrainingFailed
from hotlap.perf.terms.reasons import Unreadable


def logged(folder: Path, session: int, text: str) -> Path:
    """Writes a session's log."""
    path = folder / "logs" / "csv" / str(session) / "metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_steps_that_a_resumed_session_repeats_count_once(tmp_path: Path) -> None:
    logged(tmp_path, 1, "step,loss\n10,3\n20,2\n30,1.5\n40,1\n")
    logged(tmp_path, 2, "step,loss\n30,1.4\n")
    logged(tmp_path, 10, "step,loss\n35,1.2\n40,0.9\n")
    expected = [(10, 3), (20, 2), (30, 1.4), (35, 1.2), (40, 0.9)]
    assert curves.read(tmp_path) == {"loss": expected}


def test_a_row_that_a_kill_cut_is_left_out(tmp_path: Path) -> None:
    logged(tmp_path, 1, "step,loss\n10,3.25\n20,2.1")
    assert curves.read(tmp_path) == {"loss": [(10, 3.25)]}


@pytest.mark.parametrize("row", ["x,1", "5,one", ",1", "5,1,2"])
def test_a_damaged_log_is_one_line(row: str, tmp_path: Path) -> None:
    path = logged(tmp_path, 1, f"step,loss\n1,2\n{row}\n")
    with pytest.raises(Unreadable, match="not the log of a training") as error:
        curves.read(tmp_path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_splits_are_told_by_names() -> None:
    for name, split in (
        ("validation_accuracy", ("validation", "accuracy")),
        ("val/loss", ("validation", "loss")),
        ("train_loss", ("train", "loss")),
        ("test_loss", ("test", "loss")),
        ("loss", ("train", "loss")),
        ("value_error", ("train", "value_error")),
        ("val_", ("train", "val_")),
    ):
        assert curves.split_of(name) == split
    panels = curves.by_metric([{"val_loss": [(1, 2.0)], "lr": [(1, 0.1)], "loss": [(1, 3.0)]}])
    assert [*panels] == ["loss", "lr"] and [each.split for each in panels["loss"]] == ["validation", "train"]


def test_the_test_split_is_left_out_by_name_and_by_place(tmp_path: Path) -> None:
    """A module may call its test metric as it likes."""
    logged(tmp_path, 1, "step,accuracy,test_f1,val_accuracy\n10,,,0.5\n11,,,0.5\n11,0.9,0.8,\n")
    assert curves.read(tmp_path, scored=2) == {"val_accuracy": [(10, 0.5)]}
    assert "test_f1" not in curves.read(tmp_path)


def test_a_resumed_run_has_the_curves_of_an_uninterrupted_one() -> None:
    def stop(line: str) -> None:
        if "epoch 2 of" in line:
            raise RuntimeError("stopped")

    with pytest.raises(TrainingFailed):
        train("mlp", epochs=3, report=stop)
    (folder,) = runs.root().iterdir()
    unfinished = records.read(folder)
    assert unfinished.last_step == 21 and set(unfinished.validation) > {"accuracy", "calibration_error"}
    assert unfinished.validation["accuracy"] == unfinished.curves["validation_accuracy"][-1][1]
    train("mlp", resume="latest", report=lambda line: None)
    assert len([*folder.glob("logs/csv/*")]) == 2
    whole = train("mlp", epochs=3, report=lambda line: None)
    resumed, expected = records.read(folder).curves, records.read(whole.folder).curves
    assert [step for step, _ in resumed["validation_accuracy"]] == [10, 21, 32]
    validation = [name for name in expected if name.startswith("validation_")]
    assert [resumed[name] for name in validation] == [expected[name] for name in validation]
    assert not [name for name in expected if "test" in name]
