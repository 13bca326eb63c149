"""The same months of the latest year, and what a year added on average within the window."""

from __future__ import annotations

from torch import Tensor

from ..data.co2 import SEASON
from ..data.memory import Split
from . import seasonal_naive

NETWORKS = ("tcn",)


def outputs(train: Split, inputs: Tensor) -> Tensor:
    """Returns the forecasts (N, HORIZON) of inputs (N, T). There is nothing to fit."""
    added = (inputs[:, SEASON:] - inputs[:, :-SEASON]).mean(dim=1, keepdim=True)  # (N, 1) a season
    return seasonal_naive.outputs(train, inputs) + added
