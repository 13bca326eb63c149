"""What this CPU can do at most, measured in as long as its speed allows."""

from __future__ import annotations

import math

import pytest
import torch

from hotlap.perf.machine import peaks


@pytest.mark.parametrize(("longest_s", "size"), [(0.0, peaks.FIRST_SIZE), (math.inf, peaks.SIZE)])
def test_a_slow_precision_is_measured_on_a_small_product(
    longest_s: float, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    randn = torch.randn

    def noted(rows: int, columns: int) -> torch.Tensor:
        sizes.append(rows)
        return randn(rows, columns)

    monkeypatch.setattr(torch, "randn", noted)
    monkeypatch.setattr(peaks, "LONGEST_S", longest_s)
    monkeypatch.setattr(peaks, "TRIES", 1)
    measured = peaks.measure("fp32", torch.get_num_threads())
    assert max(sizes) == size and measured.keys() == {"flop_rate", "byte_rate"}
    assert all(math.isfinite(value) and value > 0 for value in measured.values())
