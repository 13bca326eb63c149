"""What bench/chosen.py makes of the races of its cells."""

from __future__ import annotations

import math

import pytest

from bench import chosen
from hotlap.perf.terms.case import Case

BLOCKS = 8


def blocks(seconds: float, wobble: float = 0.001) -> list[list[float]]:
    """Three rounds in each block, and blocks that differ by turns."""
    return [[seconds * (1 + wobble * (-1) ** block)] * 3 for block in range(BLOCKS)]


def cell(name: str, **latencies: list[list[float]]) -> dict[str, object]:
    return {
        "name": name,
        "batch": 1,
        "allowed": "exact",
        "setting": ["a machine"],
        "way": "openvino fp32",
        "latencies_s": latencies,
    }


def test_a_gain_is_the_other_s_time_over_the_chosen_one_s_and_wider_for_more_cells() -> None:
    latencies = {"chosen": blocks(1.0), "eager": blocks(2.0, -0.001)}
    alone = chosen.gain(latencies, "eager", 1)
    among = chosen.gain(latencies, "eager", 40)
    assert alone is not None and among is not None
    assert alone.centre == pytest.approx(2.0, rel=1e-3) and alone.low < 2.0 < alone.high
    assert among.low < alone.low and among.high > alone.high
    assert chosen.gain({"chosen": blocks(1.0)[:2], "eager": blocks(2.0)[:2]}, "eager", 1) is None


def test_the_table_says_what_is_noisy_what_failed_and_what_is_below_the_best_default() -> None:
    stored = {
        "cells": {
            "good b1 exact": cell("good", chosen=blocks(1.0), eager=blocks(3.0), openvino=blocks(1.5)),
            "worse b1 exact": cell("worse", chosen=blocks(1.0), eager=blocks(2.0), compile=blocks(0.9)),
            "loud b1 exact": cell("loud", chosen=blocks(1.0, 0.1), eager=blocks(2.0), openvino=blocks(1.1)),
            "lost b1 exact": {"name": "lost", "batch": 1, "allowed": "exact", "failed": "a <reason>"},
        }
    }
    lines = list(chosen.table(stored))
    rows = {line.split(" | ")[0].strip("| "): line for line in lines if line.startswith("| ")}
    assert "3.00 [" in rows["good"] and "1.50 [" in rows["good"] and rows["good"].endswith("| openvino |  |")
    assert "0.90 [" in rows["worse"] and "| compile |" in rows["worse"]
    assert rows["loud"].endswith("noisy |")
    (summary,) = [line for line in lines if line.startswith("- exact: 3 cells")]
    assert f"over the best default {math.exp(sum(map(math.log, (1.5, 0.9, 1.1))) / 3):.2f}" in summary
    assert any("1 of 3 cells" in line for line in lines)
    assert any(line.startswith("- lost b1 exact: a ") and "<reason>" not in line for line in lines)


def test_every_model_is_asked_for_and_int8_only_where_an_evaluation_says_what_it_costs() -> None:
    keys = [each.key for each in chosen.cells(["mlp", "resnet18"], (1, 16))]
    assert keys == [
        "mlp b1 exact",
        "mlp b1 drop",
        "mlp b16 exact",
        "mlp b16 drop",
        "resnet18 b1 exact",
        "resnet18 b16 exact",
    ]
    assert chosen.Cell("silero", 1, "drop").reference == "bench.real:silero"


def test_a_default_is_told_from_the_chosen_way_and_the_runner_up() -> None:
    class Result:
        def __init__(self, case: Case) -> None:
            self.case = case

    def case(backend: str, *options: tuple[str, str]) -> Case:
        return Case("net", backend, "fp32", 1, "cpu", "inference", options)

    ours = case("openvino")
    roles = [
        chosen.role(Result(each), ours)  # type: ignore[arg-type]  # only its case is read
        for each in (ours, case("eager", *chosen.LIBRARY_DEFAULTS), case("onnxruntime"))
    ]
    assert roles == ["chosen", "eager", ""]
