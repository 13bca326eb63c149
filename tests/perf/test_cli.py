"""The command line without a race: help at once, usage errors in one line, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import typer

from hotlap.perf import cli
from hotlap.perf.commands import application, lists
from hotlap.perf.terms import result
from hotlap.perf.terms.case import Case, Plan
from hotlap.perf.terms.reasons import Misuse, Reason
from hotlap.perf.terms.result import Result, Results

LIGHT = """
import json, sys
from hotlap.perf import cli
code = cli.status(sys.argv[1:])
print()
print(json.dumps([code, sorted(sys.modules)]))
"""
Captured = pytest.CaptureFixture[str]
HEAVY = {"torch", "lightning", "onnx", "onnxruntime", "openvino", "sklearn", "scipy"}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("HOTLAP_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A results file with one failed case."""
    failed = Result(Case("net", "compile"), "r", Plan(), "failed", Reason("timeout", "no answer"))
    path = tmp_path / "saved.json"
    path.write_bytes(result.encode(Results("r", "hotlap run net", {}, results=(failed,))))
    return path


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--help"], 0, "Commands:"),
        ([], 0, "Commands:"),
        (["--version"], 0, metadata.version("hotlap")),
        (["run", "--help"], 0, "--budget"),
        (["run", "rsnet"], 2, ""),
        (["run", "mlp", "--backends", "eagr"], 2, ""),
    ],
)
def test_help_and_usage_errors_import_nothing_heavy(arguments: list[str], code: int, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *arguments], capture_output=True, text=True, check=True
    )
    *printed, last = done.stdout.splitlines()
    exit_code, modules = json.loads(last)
    assert exit_code == code, done.stderr
    assert words in "\n".join(printed)
    assert HEAVY.isdisjoint(modules)


@pytest.mark.parametrize("command", ["run", "ab", "gate", "history", "noise", "doctor", "report", "train"])
def test_every_command_has_help(command: str, capsys: Captured) -> None:
    assert cli.status([command, "--help"]) == 0
    assert f" {command} [OPTIONS]" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rnu"], "Did you mean 'run'?"),
        (["run", "--bugdet", "1s"], "--budget"),
        (["run", "rsnet"], "unknown workload 'rsnet': did you mean resnet"),
        (["run", "nowhere:make"], "no module named 'nowhere'"),
        (["run", "mlp", "--backends", "eagr"], "unknown backend 'eagr': did you mean eager"),
        (
            ["run", "mlp", "--backends", "eager[layuot:contiguous]"],
            "unknown option of eager 'layuot': did you mean layout",
        ),
        (["run", "mlp", "--precisions", "bf61"], "unknown precision 'bf61': did you mean bf16"),
        (["run", "mlp", "--batch", "0"], "--batch '0': expected whole numbers of at least 1"),
        (["run", "mlp", "--batch", "1,x"], "--batch 'x': expected whole numbers"),
        (["run", "mlp", "--device", "gpu"], "target 'gpu' is neither cpu, cuda:N"),
        (["run", "mlp", "--budget", "5x"], "'5x' is no length of time; write it as 90s, 2m or 1h"),
        (["run", "mlp", "--timeout", "0"], "'0' is no length of time"),
        (["run", "mlp", "--threads", "-1"], "--threads"),
        (
            ["run", "mlp", "--checkpoint", "x.ckpt"],
            "--checkpoint goes with package.module:Class or package.module:function",
        ),
        (["run", "a:b", "c:d", "--checkpoint", "x.ckpt"], "--checkpoint needs exactly one workload"),
        (["run", "a:b", "--checkpoint", "x.ckpt"], "checkpoint x.ckpt does not exist"),
        (["run", "--resume"], "no run to resume under"),
        (["run", "--resume", "20990101"], "takes an ID under"),
        (["run", "--resume", "../../elsewhere"], "takes the ID of a run, not the path"),
        (["run", "--resume", ".."], "takes the ID of a run, not the path"),
        (["report"], "no run to resume under"),
        (["report", "--markdwn", "-"], "--markdown"),
        (["report", "missing.json"], "missing.json: there is no such file"),
        (["doctor", "--seconds", "0"], "--seconds"),
    ],
)
def test_usage_errors_are_one_line_exit_2_and_leave_nothing(
    arguments: list[str], words: str, capsys: Captured, empty_folder: Path
) -> None:
    assert cli.status(arguments) == 2
    heard = capsys.readouterr()
    assert heard.err.startswith("hotlap: ")
    assert heard.err.count("\n") == 1
    assert words in heard.err
    assert heard.out == ""
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (None, 0, ""),
        (3, 3, ""),
        (Misuse("what is wrong"), 2, "hotlap: what is wrong\n"),
        (KeyboardInterrupt(), 130, "\nhotlap: interrupted; what was measured is kept\n"),
        (typer.Abort(), 130, "\nhotlap: interrupted; what was measured is kept\n"),
    ],
)
def test_exit_codes(
    error: BaseException | int | None,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    ends_with(error, monkeypatch)
    assert cli.status([]) == code
    assert capsys.readouterr().err == message
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == code


def test_our_own_fault_exits_70_with_its_traceback(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    ends_with(ZeroDivisionError("ours"), monkeypatch)
    assert cli.status([]) == 70
    heard = capsys.readouterr().err
    assert "Traceback" in heard
    assert "ZeroDivisionError: ours" in heard
    assert heard.endswith("hotlap: this is our own fault, please report it with the lines above\n")


def ends_with(error: BaseException | int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plants a command that ends like this."""

    def command() -> int | None:
        if isinstance(error, BaseException):
            raise error
        return error

    planted = typer.Typer(add_completion=False)
    planted.command()(command)
    monkeypatch.setattr(application, "app", lambda: planted)


def test_a_reader_that_goes_away_is_no_error() -> None:
    """`hotlap --help | head -1`: the pipe's other end is closed before anything is written."""
    with subprocess.Popen(
        [sys.executable, "-m", "hotlap.perf.cli", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (0, b"")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["run", "--resume"], ["run", "--resume", "latest"]),
        (["run", "--resume", "--budget", "5s"], ["run", "--resume", "latest", "--budget", "5s"]),
        (["run", "--resume", "ID"], ["run", "--resume", "ID"]),
        (["run", "mlp"], ["run", "mlp"]),
    ],
)
def test_resume_without_an_id_is_the_latest(arguments: list[str], meant: list[str]) -> None:
    assert cli.with_latest(arguments) == meant


def test_lists_are_separated_by_commas() -> None:
    assert lists.split(" a, b,,c[x:y] ") == ["a", "b", "c[x:y]"]


def test_report_prints_the_table_and_the_reasons(saved: Path, capsys: Captured) -> None:
    assert cli.status(["report", str(saved)]) == 0
    out = capsys.readouterr().out
    assert "failed: timeout" in out
    assert "net/compile/fp32/b1/cpu/inference: failed: timeout: no answer" in out


def test_report_writes_markdown_to_a_file_or_stdout(saved: Path, tmp_path: Path, capsys: Captured) -> None:
    assert cli.status(["report", str(saved), "--markdown", "-"]) == 0
    out = capsys.readouterr().out
    assert "| net compile | failed: timeout |" in out
    assert cli.status(["report", str(saved), "--markdown", "table.md"]) == 0
    assert (tmp_path / "table.md").read_text() == out


def test_report_takes_the_latest_run(saved: Path, tmp_path: Path, capsys: Captured) -> None:
    latest = tmp_path / "runs" / "race" / "one" / "results.json"
    latest.parent.mkdir(parents=True)
    saved.rename(latest)
    assert cli.status(["report"]) == 0
    assert "net compile" in capsys.readouterr().out


def test_a_results_file_that_cannot_be_read_exits_4(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "damaged.json").write_text("{ half a fi")
    assert cli.status(["report", "damaged.json"]) == 4
    assert capsys.readouterr().err.startswith("hotlap: damaged.json: not a results file of hotlap: ")


def test_markdown_that_cannot_be_written_is_a_usage_error(saved: Path, capsys: Captured) -> None:
    assert cli.status(["report", str(saved), "--markdown", "nowhere/table.md"]) == 2
    assert capsys.readouterr().err.startswith("hotlap: ")
