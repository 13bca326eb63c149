"""hotlap train: what it prints, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from hotlap.models import runs
from hotlap.models.cli import train
from hotlap.models.nets.mlp import MLP
from hotlap.perf import cli


def call(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(train)
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "TERM": "dumb"})


def test_a_training_ends_with_its_test_metrics_and_checkpoint(runs_folder: Path) -> None:
    done = call("mlp", "--epochs", "2", "--seed", "3")
    assert done.exit_code == 0, done.output
    run = runs.newest("mlp", finished=True)
    assert run is not None and run.parent == runs_folder
    lines = done.output.splitlines()
    assert lines[0].startswith("mlp: epoch 1 of 2, loss ") and lines[1].startswith("mlp: epoch 2 of 2, loss ")
    assert lines[-1] == f"checkpoint: {run}/last.ckpt"
    assert "accuracy" in done.output and "f1_macro" in done.output
    assert runs.Settings.read(run) == runs.Settings("mlp", seed=3, epochs=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnt"], "did you mean resnet"),
        (["zzz"], "known names: gpt, mlp, resnet, tcn, unet, vae, vit"),
        (["mlp", "mlp-20260101-000000-0000"], "write --resume mlp-20260101-000000-0000"),
        (["mlp", "--resume"], "no unfinished run"),
        (["mlp", "--resume", "nonsense"], "there is no run 'nonsense'"),
        (["mlp", "--epochs", "0"], "epochs"),
        ([], "name one: gpt, mlp, resnet, tcn, unet, vae, vit"),
        (["mlp", "epochs"], "no KEY=VALUE"),
        (["--resume", "mlp-20260101-000000-0000"], "there is no run 'mlp-20260101-000000-0000'"),
        (["mlp", "--resume", "--data", "net:Rows"], "leave net:Rows out"),
    ],
)
def test_usage_errors_exit_2(arguments: list[str], message: str, runs_folder: Path) -> None:
    done = call(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", " ").split())
    assert not runs_folder.exists()


def test_resume_takes_an_id_or_the_newest_unfinished_run() -> None:
    older = runs.create(runs.Settings("mlp", seed=0, epochs=1))
    newer = runs.create(runs.Settings("mlp", seed=0, epochs=1))
    assert call("mlp", "--resume", older.name).output.splitlines()[-1] == f"checkpoint: {older}/last.ckpt"
    assert call("mlp", "--resume").output.splitlines()[-1] == f"checkpoint: {newer}/last.ckpt"
    assert "no unfinished run" in call("mlp", "--resume").output


def test_a_damaged_checkpoint_exits_4() -> None:
    folder = runs.create(runs.Settings("mlp", seed=0, epochs=1))
    (folder / "last.ckpt").write_bytes(b"damaged")
    done = call("mlp", "--resume")
    assert done.exit_code == 4
    assert f"checkpoint {folder}/last.ckpt is damaged" in done.output and "Traceback" not in done.output


def test_ctrl_c_exits_130_and_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    original = MLP.training_step

    def interrupted(self: MLP, batch: tuple, batch_idx: int) -> object:
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return original(self, batch, batch_idx)

    monkeypatch.setattr(MLP, "training_step", interrupted)
    done = call("mlp", "--epochs", "2")
    run = runs.newest("mlp", finished=False)
    assert done.exit_code == 130
    assert run is not None
    assert done.output.splitlines()[-1] == f"interrupted; hotlap train mlp --resume {run.name} goes on"


def test_after_ctrl_c_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: MLP) -> None:
        if self.current_epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MLP, "on_train_epoch_start", interrupted)
        assert call("mlp", "--epochs", "2").exit_code == 130
    done = call("mlp", "--resume")
    assert done.exit_code == 0 and done.output.startswith("mlp: epoch 2 of 2")


def test_resume_alone_is_the_newest_run_and_takes_no_other_steps(capsys: pytest.CaptureFixture[str]) -> None:
    """Through the command line itself, which puts `latest` behind a bare --resume."""
    run = runs.create(runs.Settings("mlp", seed=0, epochs=1))
    assert cli.status(["train", "--resume", "seed_everything=1"]) == 2
    assert "goes on as it was started; leave seed_everything=1 out" in capsys.readouterr().err
    assert cli.status(["train", "spike=null", "--resume"]) in (0, None)
    assert capsys.readouterr().out.splitlines()[-1] == f"checkpoint: {run}/last.ckpt"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("trainer.accelerator=foo",), "invalid accelerator name: `accelerator='foo'`"),
        (("trainer.max_steps=-5",), "max_steps"),
        (("seed_everything=-1",), "-1 is not in bounds"),
        (("threads=0",), "threads must be at least 1, not 0"),
        (("trainer.val_check_interval=1000",), "val_check_interval"),
        (("trainer.callbacks=[{class_path: EarlyStopping, init_args: {monitor: accuracy}}]",), "accuracy"),
    ],
)
def test_settings_that_lightning_refuses_are_one_line_and_leave_no_run(
    words: tuple[str, ...], message: str, runs_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.status(["train", "mlp", "--epochs", "1", *words]) in (2, 4)
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert message in line
    assert not list(runs_folder.glob("*/last.ckpt"))
