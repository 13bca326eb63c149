"""A model is traced for a GPU that is not here, or torch says that it needs the driver."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hotlap.perf.machine import cuda_devices
from hotlap.perf.terms.reasons import Refusal


def test_this_torch_takes_a_tensor_to_a_device_that_is_not_here() -> None:
    cuda_devices.faked("cuda:0")


def test_a_torch_that_asks_for_the_driver_is_a_missing_dependency(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch 2.9.1 raises."""

    def to(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU")

    monkeypatch.setattr(torch.Tensor, "to", to)
    with pytest.raises(
        Refusal, match=r"dep_missing: torch .* needs NVIDIA's driver .* pip install 'torch>=2.11'"
    ):
        cuda_devices.faked("cuda:0")


def test_another_error_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def to(*_: Any, **__: Any) -> Any:
        raise RuntimeError("planted")

    monkeypatch.setattr(torch.Tensor, "to", to)
    with pytest.raises(RuntimeError, match="planted"):
        cuda_devices.faked("cuda:0")
