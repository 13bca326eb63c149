"""The target that a command takes where none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from hotlap.perf import cli
from hotlap.perf.commands import lists, progress
from hotlap.perf.commands.application import app
from hotlap.perf.lookup.cases import default_backends
from hotlap.perf.machine import present
from hotlap.perf.measure.rundir import RunFolder
from hotlap.perf.terms.case import Case, Plan
from hotlap.perf.terms.reasons import Reason
from hotlap.perf.terms.result import Result


def test_a_target_that_was_typed_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(present, "automatic_target", lambda: ("cuda:0", "target cuda:0, a stand-in"))
    lines: list[str] = []
    for target in ("cpu", "cuda:1", "sm_89"):
        assert lists.target_of(target, lines) == target
    assert lines == []
    assert lists.target_of("auto", lines) == "cuda:0"
    assert lines == ["target cuda:0, a stand-in"]


@pytest.mark.parametrize("command", ["run", "ab", "profile"])
def test_auto_is_the_default(command: str) -> None:
    """Under either name of the option."""
    whole: Any = typer.main.get_command(app())
    (option,) = (each for each in whole.commands[command].params if "--target" in each.opts)
    assert option.default == lists.AUTO and "--device" in option.opts


@pytest.mark.parametrize(
    ("arguments", "target", "line"),
    [
        ([], "cuda:0", "target cuda:0, a stand-in\n"),
        (["--target", "cpu"], "cpu", ""),
    ],
)
def test_run_races_the_backends_of_the_target_that_it_takes(
    arguments: list[str],
    target: str,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And says first which it took, where nobody named one."""
    asked: list[Case] = []

    def carried_out(cases: list[Case], opened: RunFolder, *_: object, **__: object) -> list[Result]:
        asked.extend(cases)
        opened.close()
        return [Result(case, "r", Plan(), "skipped", Reason("no_device", "planted")) for case in cases]

    monkeypatch.setattr(progress, "carried_out", carried_out)
    monkeypatch.setattr(present, "automatic_target", lambda: ("cuda:0", "target cuda:0, a stand-in"))
    assert cli.status(["run", "mlp", "--out", str(tmp_path / "out"), *arguments]) == 4
    printed = capsys.readouterr().out
    assert printed.startswith(line) and ("a stand-in" in printed) == bool(line)
    assert {case.target for case in asked} == {target}
    specs = [case.spec for case in asked if case.backend != "pace"]
    assert specs == default_backends(target)
    assert ("openvino" in specs) == (target == "cpu") and ("tensorrt" in specs) == (target == "cuda:0")
    assert "mlp" in printed and "next: hotlap doctor" in printed
