"""The same months of the latest year: what comes is what was a season ago."""

from __future__ import annotations

from torch import Tensor

from ..data.co2 import HORIZON, SEASON
from ..data.memory import Split

NETWORKS = ("tcn",)


def outputs(train: Split, inputs: Tensor) -> Tensor:
    """Returns the forecasts (N, HORIZON) of inputs (N, T). There is nothing to fit."""
    seasons = -(-HORIZON // SEASON)
    return inputs[:, -SEASON:].repeat(1, seasons)[:, :HORIZON]
