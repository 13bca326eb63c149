"""What bench/regret.py makes of the last race of a cell."""

from __future__ import annotations

import pytest

from bench import regret


def cell(way: str, **seconds: float) -> dict[str, object]:
    blocks = {spec: [[value * drift] * 5 for drift in (0.9, 1.0, 1.001)] for spec, value in seconds.items()}
    return {"setting": ["a machine"], "way": way, "tried": 9, "latencies_s": blocks}


def test_regret_is_the_chosen_one_s_time_over_the_fastest_one_s() -> None:
    missed = cell("onnxruntime", onnxruntime=1.04, openvino=1.0, compile=2.0)
    assert regret.fastest(missed) == "openvino"
    assert regret.regret(missed).centre == pytest.approx(1.04)
    assert regret.regret(cell("openvino", onnxruntime=1.04, openvino=1.0)).centre == 1


def test_the_table_says_mean_worst_and_what_failed() -> None:
    cells = {
        "mlp b1": cell("openvino", openvino=1.0, onnxruntime=1.1),
        "vit b1": cell("onnxruntime", openvino=1.0, onnxruntime=1.06),
        "gpt b1": {"failed": "no | answer"},
    }
    lines = list(regret.table({"cells": cells}))
    assert "| mlp b1 | openvino | 9 | openvino | 0.0% |" in lines
    assert "| vit b1 | onnxruntime | 9 | openvino | 6.0% [6.0%, 6.0%] |" in lines
    assert "- over 2 cells: mean 3.0% of 1.5% aimed at, worst 6.0% of 5%" in lines
    assert lines[-1] == r"- gpt b1: no \| answer"
