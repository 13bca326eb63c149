"""hotlap runs: what is on the disk listed, shown, compared and pruned."""

from __future__ import annotations

from pathlib import Path

import pytest

from hotlap.models import records, runs
from hotlap.models.train import train
from hotlap.perf import cli
from hotlap.perf.terms import result
from hotlap.perf.terms.case import Case, Plan
from hotlap.perf.terms.reasons import Reason
from hotlap.perf.terms.result import Deviation, Task

pytestmark = pytest.mark.usefixtures("wide")


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "220")


def trained(**arguments: object) -> runs.TrainingRun:
    return train("mlp", report=lambda line: None, **{"epochs": 1, **arguments})


def output(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.status(["runs", *words]) == 0
    return capsys.readouterr().out


def test_two_runs_are_listed_shown_and_compared(capsys: pytest.CaptureFixture[str]) -> None:
    first = trained()
    second = trained(seed=1, overrides=["model.width=32", "model.recipe.learning_rate=0.01"])
    unfinished = runs.create(runs.Settings("other.net:Net", 0, 3))
    listed = output(capsys)
    rows = [line for line in listed.splitlines() if "-2026" in line or "-20" in line]
    assert [first.id in rows[0], second.id in rows[1], unfinished.name in rows[2]] == [True] * 3
    assert "finished" in rows[0] and f"accuracy {first.validation['accuracy']:.4g}" in rows[0]
    assert "unfinished" in rows[2] and "other.net:Net" in rows[2]
    assert unfinished.name not in output(capsys, "list", "mlp")

    shown = output(capsys, "show", second.id)
    assert shown.startswith("mlp, ") and "model.init_args.width=32" in shown and "last.ckpt" in shown
    assert f"validation accuracy {second.validation['accuracy']:.4g}" in shown
    assert f"hotlap train --resume {unfinished.name} goes on" in output(capsys, "show", unfinished.name)

    compared = output(capsys, "compare", first.id, second.id)
    settings, scores, _ = (part for part in compared.split("┏")[1:])
    keys = [line.split("│")[1].strip() for line in settings.splitlines() if line.startswith("│")]
    assert keys == [
        "seed_everything",
        "model.init_args.width",
        "model.init_args.recipe.learning_rate",
        "data.init_args.seed",
    ]
    difference = second.validation["accuracy"] - first.validation["accuracy"]
    assert f"({difference:+.4g})" in scores and "one training each" in compared


def test_old_finished_runs_are_pruned_when_asked_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    created = [runs.create(runs.Settings("mlp", seed, 1)) for seed in range(4)]
    for folder in created[:3]:
        (folder / runs.METRICS).write_text("{}")
    elsewhere = tmp_path / "elsewhere"
    created[0].rename(elsewhere)
    created[0].symlink_to(elsewhere)
    assert records.superfluous(1) == [created[1]]
    printed = output(capsys, "prune", "--keep", "1")
    assert created[1].name in printed and "1 runs would be removed" in printed and created[1].exists()
    assert "1 runs removed" in output(capsys, "prune", "--keep", "1", "--yes")
    assert not created[1].exists() and all(folder.exists() for folder in (*created[2:], elsewhere))
    assert "0 runs removed" in output(capsys, "prune", "--keep", "1")


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    folder = runs.create(runs.Settings("mlp", 0, 1))
    for words, status, message in (
        (("show",), 2, "name one run"),
        (("show", folder.name[:-1] + "x"), 2, f"did you mean {folder.name}?"),
        (("compare", folder.name), 2, "name two runs or more"),
        (("lst",), 2, "'lst' is not one of"),
    ):
        assert cli.status(["runs", *words]) == status
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    (folder / runs.METRICS).write_text("{")
    assert cli.status(["runs", "show", folder.name]) == 4
    capsys.readouterr()
    listed = output(capsys)
    assert folder.name in listed and "not a file of a training" in listed


def test_what_a_file_holds_reaches_no_terminal_unescaped(capsys: pytest.CaptureFixture[str]) -> None:
    folder = runs.create(runs.Settings("net:\x1b[31mNet", 0, 1))
    (folder / runs.METRICS).write_text('{"validation": {"acc\\u001b[2J": 1.0}, "seconds": 1}')
    for words in ((), ("show", folder.name), ("compare", folder.name, folder.name)):
        assert "\x1b[31m" not in (text := output(capsys, *words)) and "\x1b[2J" not in text


def evaluated(path: Path, weights: str, status: str = "ok") -> Path:
    """Writes a results file as hotlap run does, of one case of these weights."""
    reason = None if status == "ok" else Reason("accuracy", "too far off")
    deviation = Deviation(task=Task("accuracy", "higher", 0.9, 0.9, 0.01))
    case = result.Result(
        Case("mlp", "eager"), "race", Plan(), status, reason, weights=weights, deviation=deviation
    )  # type: ignore[arg-type]
    path.write_bytes(result.encode(result.Results("run", "hotlap run mlp", {}, results=(case,))))
    return path


def test_a_run_is_promoted_by_an_evaluation_of_its_own_checkpoint_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, value in (("NAME", "user.name"), ("a@b", "user.email")):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{int(value == 'user.email')}", value)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{int(value == 'user.email')}", key)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "2")
    run = trained()
    mine = runs.digest(run.checkpoint)[:8]
    good = evaluated(tmp_path / "good.json", f"trained, epoch 1, checkpoint sha256:{mine}")
    for file, message in (
        (evaluated(tmp_path / "other.json", "trained, checkpoint sha256:00000000"), "sha256:00000000"),
        (evaluated(tmp_path / "wrong.json", f"checkpoint sha256:{mine}", "failed"), "but nothing"),
    ):
        assert cli.status(["runs", "promote", run.id, "--evaluation", str(file)]) == 2
        assert message in capsys.readouterr().err
    assert cli.status(["runs", "promote", run.id]) == 2
    assert "--evaluation RESULTS.json" in capsys.readouterr().err
    assert "test accuracy" not in output(capsys, "show", run.id)

    printed = output(capsys, "promote", run.id, "--evaluation", str(good))
    assert f"{run.id} promoted by NAME <a@b> (what git is configured to say, no signature)" in printed
    assert "promoted" in output(capsys)
    shown = output(capsys, "show", run.id)
    assert f"test accuracy {run.test['accuracy']:.4g}" in shown and "promoted by: NAME <a@b>" in shown
    assert (run.folder / "evaluation.json").read_bytes() == good.read_bytes()
    assert records.superfluous(0) == []


def test_an_unfinished_run_is_not_promoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = runs.create(runs.Settings("mlp", 0, 1))
    file = evaluated(tmp_path / "good.json", "trained")
    assert cli.status(["runs", "promote", folder.name, "--evaluation", str(file)]) == 2
    assert "is not finished" in capsys.readouterr().err
