"""A user's function around a model, as a step."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from hotlap.perf.race import pipelines
from hotlap.perf.terms.contract import Step
from hotlap.perf.terms.reasons import Refusal

FUNCTIONS = """
import numpy as np
import torch


def decode():
    value = 0.0
    for index in range(20_000):
        value += index % 7
    return value


def slow_before(model):
    decode()
    return model(torch.ones(2, 3))


def never(model):
    return 1


def wrong(model):
    return model(np.ones((2, 3), np.float32)).nothing
"""


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Step:
    (tmp_path / "functions_around.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return Step(call=lambda arrays: [2 * arrays[0]], place=lambda arrays: arrays, fetch=tuple)


def test_the_model_takes_arrays_and_tensors(step: Step) -> None:
    model = pipelines.Model(step)
    assert np.array_equal(model(np.ones(3, np.float32)), np.full(3, 2, np.float32))
    assert torch.equal(model(torch.ones(3)), torch.full((3,), 2.0))
    pair = pipelines.Model(Step(call=lambda arrays: [arrays[0], arrays[0]], place=tuple, fetch=tuple))
    assert len(pair(torch.ones(3))) == 2 and model.spent_s > 0


def test_what_takes_the_time_is_named(step: Step) -> None:
    around = pipelines.around(step, "functions_around:slow_before")
    assert around.fetch(around.call(around.place(()))) == ()
    start = time.perf_counter()
    seen = pipelines.broken_down(around, "functions_around:slow_before")
    assert seen.other == "decode" and seen.other_s > 0.5 * seen.total_s > seen.model_s > 0
    assert seen.total_s < time.perf_counter() - start


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("functions_around:never", "never called the model"),
        ("functions_around:wrong", "AttributeError"),
        ("functions_around:absent", "no attribute 'absent'"),
        ("functions_around", "expected package.module:function"),
        ("functions_nowhere:predict", "No module named"),
    ],
)
def test_a_function_that_is_none_is_refused(name: str, words: str, step: Step) -> None:
    with pytest.raises(Refusal, match=words):
        pipelines.around(step, name)
