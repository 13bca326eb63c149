"""A model with a part that TorchScript has compiled: what an exporter says of it, or makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hotlap.perf.lowering import aoti, exporters
from hotlap.perf.terms.reasons import Refusal

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")


class Doubled(nn.Module):
    """Decides by a value, which TorchScript keeps as a decision."""

    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 0):
            return x * 2
        return x - 1


def model() -> nn.Module:
    return nn.Sequential(torch.jit.script(Doubled()), nn.Linear(4, 2)).eval()


def test_what_is_recorded_keeps_the_decision_of_a_scripted_part() -> None:
    module = model()
    rows = torch.ones(2, 4), -torch.ones(2, 4)
    with torch.no_grad():
        recorded = exporters.recordable(module, rows[:1])
        for values in rows:
            assert np.allclose(recorded(values), module(values))


def test_a_module_without_such_a_part_stays_itself() -> None:
    module = nn.Linear(4, 2)
    assert exporters.recordable(module, (torch.ones(1, 4),)) is module


def test_a_refusal_names_the_part() -> None:
    with pytest.raises(Refusal, match="its part 0 is TorchScript") as refusal:
        aoti.exported(model(), (torch.ones(2, 4),), dynamic=False)
    assert refusal.value.reason.code == "export_failed"
