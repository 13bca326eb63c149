"""The target that a command takes where none is named."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from hotlap.perf.commands import lists
from hotlap.perf.commands.application import app
from hotlap.perf.machine import present


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


def test_run_races_the_backends_of_the_target_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from hotlap.perf.commands import racing
    from hotlap.perf.terms.case import Plan

    by_target = {
        target: {case.backend for case in racing.asked(["mlp"], "", "", "fp32", "1", [target], Plan())}
        for target in ("cpu", "cuda:0")
    }
    assert "openvino" in by_target["cpu"] - by_target["cuda:0"]
    assert "tensorrt" in by_target["cuda:0"] - by_target["cpu"]
