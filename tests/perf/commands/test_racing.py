"""How long `hotlap run` says that it takes, and whom its first look races."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hotlap.perf.commands import racing
from hotlap.perf.lookup.cases import expand
from hotlap.perf.terms.case import Case, Plan


def test_the_duration_counts_races_precisions_entrants_and_models_that_train() -> None:
    """Two races of two precisions with 90 s each; eager and onnxruntime in both, and the pace."""
    cases = expand(["mlp", "own.module:make"], ["eager", "onnxruntime"], ["fp32", "bf16"])
    line = racing.duration(cases, Plan(budget_s=90.0))
    assert "2 races: 6 min of measuring" in line
    assert "for 8 entrants to build and check" in line
    assert "60 s for 1 model to train if untrained" in line
    assert line.startswith("at most about 11 min: ")


def test_an_architecture_that_is_not_here_is_built_and_takes_no_measuring() -> None:
    line = racing.duration(expand(["own.module:make"], ["eager"], target="sm_89"), Plan())
    assert line == ("at most about 30 s: 1 race: 0 s of measuring, 30 s for 1 entrant to build and check")


@pytest.mark.parametrize(
    ("backends", "target", "raced"),
    [
        (["eager", "compile", "onnxruntime"], "cpu", ["eager", "onnxruntime"]),
        (["eager", "compile"], "cpu", []),
        (["eager", "onnxruntime"], "cuda:0", []),
    ],
)
def test_the_first_look_races_the_baseline_and_what_is_built_soonest(
    backends: list[str], target: str, raced: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Case] = []
    nothing: Any = None

    class Folder:
        def __init__(self, *_: object) -> None:
            self.folder, self.results = tmp_path, self
            self.command = self.key = ""

        def print(self, *_: object, **__: object) -> None:
            """Of the console."""

    def carried_out(cases: list[Case], *_: object) -> None:
        seen.extend(cases)

    stand_in: Any = Folder()
    monkeypatch.setattr(racing, "RunFolder", Folder)
    monkeypatch.setattr(racing, "carried_out", carried_out)
    monkeypatch.setattr(racing, "FirstLook", lambda console: nothing)
    racing.first_look(expand(["mlp", "vit"], backends, target=target), stand_in, Plan(), stand_in, stand_in)
    assert [case.spec for case in seen] == raced
    assert {case.workload for case in seen} <= {"mlp"}
