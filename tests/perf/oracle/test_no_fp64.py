"""Where fp32 is what outputs are held against, its own error is no zero."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hotlap.perf.oracle import reference
from hotlap.perf.terms.case import Workload


class InFp32(torch.nn.Module):
    """Runs in fp32 alone: a part of it is compiled for that."""

    def __init__(self, refuses: bool) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(256, 64)
        self.refuses = refuses

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.refuses and x.dtype == torch.float64:
            raise TypeError("made for float32")
        return torch.tanh(self.layer(x))


def costs(refuses: bool, folder: Path) -> float:
    torch.manual_seed(0)
    workload = Workload("w", InFp32(refuses).eval(), (torch.randn(4, 256),))
    folder.mkdir()
    reference.refer(workload, 4, ["fp32"], "cpu", folder, 1)
    with np.load(folder / "real.npz") as stored:
        return float(stored["rounding0"])


def test_what_rounding_costs_stands_for_eagers_own_error(tmp_path: Path) -> None:
    known, unknown = costs(False, tmp_path / "known"), costs(True, tmp_path / "unknown")
    # in fp32 a result is moved by an ulp, in fp64 by half of one
    assert unknown / known == pytest.approx(2 * reference.IN_PLACE_OF_EAGER, rel=0.3)
