"""Which runs a list shows, in which order, and what of an unfinished one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hotlap.models import runs
from hotlap.models.promotion import PROMOTED
from hotlap.perf import cli


def stored(width: int, accuracy: float | None, name: str = "mlp") -> Path:
    """Writes a run with this setting; a finished one where it has a score."""
    folder = runs.create(runs.Settings(name, 0, 2))
    setting = {"init_args": {"width": width, "rate": 0.001, "mode": "max", "bias": True}}
    (folder / runs.CONFIGURATION).write_text(json.dumps({"model": setting}))
    if accuracy is not None:
        scores = {"validation": {"accuracy": accuracy, "loss": None}, "seconds": 1}
        (folder / runs.METRICS).write_text(json.dumps(scores))
    return folder


@pytest.fixture
def five(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The IDs of five runs: two finished, one promoted, two unfinished, of which one has a log."""
    monkeypatch.setenv("COLUMNS", "220")
    folders = [stored(16, 0.5), stored(32, 0.75), stored(64, 0.25), stored(64, None), stored(64, None, "gpt")]
    (folders[2] / PROMOTED).write_text('{"by": "NAME"}')
    log = folders[3] / "logs" / "csv" / "1" / "metrics.csv"
    log.parent.mkdir(parents=True)
    log.write_text("step,loss,val_accuracy\n9,,0.625\n9,2.5,\n")
    return [folder.name for folder in folders]


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """Returns the rows of the list."""
    assert cli.status(["runs", "list", *words]) == 0
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ((), [0, 1, 2, 3, 4]),
        (("--state", "finished"), [0, 1, 2]),
        (("--state", "promoted"), [2]),
        (("--state", "unfinished"), [3, 4]),
        (("--where", "model.init_args.width=64"), [2, 3, 4]),
        (("--where", "model.width=64"), [2, 3, 4]),
        (("--where", "model.width=64", "--where", "model.rate=1e-3", "--state", "finished"), [2]),
        (("--where", "model.mode=max", "--where", "model.width=sixteen"), []),
        (("--where", "model.bias=true", "mlp"), [0, 1, 2, 3]),
        (("--sort", "accuracy"), [1, 3, 0, 2, 4]),
        (("--sort", "validation_accuracy", "--state", "finished"), [1, 0, 2]),
        (("--sort", "-val_accuracy"), [2, 0, 3, 1, 4]),
        (("--sort", "loss"), [0, 1, 2, 3, 4]),
    ],
)
def test_runs_are_chosen_and_ordered(
    words: tuple[str, ...], chosen: list[int], five: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = listed(capsys, *words)
    assert [row.split()[1] for row in rows] == [five[number] for number in chosen]


def test_an_unfinished_run_has_what_it_logged_last(
    five: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = listed(capsys)
    assert (
        "unfinished" in rows[3] and "accuracy 0.625 at step 9" in rows[3] and "step" not in rows[4] + rows[0]
    )
    assert cli.status(["runs", "show", five[3]]) == 0
    assert "validation accuracy 0.625 at step 9" in capsys.readouterr().out


def test_files_of_the_test_split_are_named_of_promoted_runs_alone(
    five: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for ID, named in ((five[0], False), (five[2], True)):
        for split in ("validation", "test"):
            (runs.root() / ID / f"evaluation_{split}.json").write_text("{}")
        assert cli.status(["runs", "show", ID]) == 0
        printed = capsys.readouterr().out
        assert "evaluation_validation.json" in printed and ("evaluation_test.json" in printed) == named


def test_mistakes_are_one_line(five: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (("--where", "model.width"), "'model.width' is no KEY=VALUE"),
        (("--where", "model.widht=1"), "no run has a setting 'model.widht'; did you mean model.width "),
        (("--sort", "acuracy"), "no run has a metric 'acuracy'; did you mean accuracy?"),
        (("--sort", "train_accuracy"), "no run has a metric 'train_accuracy'; did you mean accuracy?"),
        (("--sort", "test_accuracy"), "who chooses by the test split has none"),
        (("--state", "done"), "'done' is not one of"),
    ):
        assert cli.status(["runs", "list", *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


def test_a_damaged_log_is_a_row_with_its_reason(five: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (runs.root() / five[3] / "logs" / "csv" / "1" / "metrics.csv").write_text("step,loss\nx,y\n")
    rows = listed(capsys, "--sort", "accuracy")
    assert five[3] in "".join(rows[4:]) and "not the log of a training" in " ".join(rows)
