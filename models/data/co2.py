"""Carbon dioxide in the air over Mauna Loa, as it ships with statsmodels.

2,284 weeks from March 1958 to December 2001, in parts per million (ppm); 59 of them were not
measured. Source: Keeling and Whorf, Atmospheric CO2 records from sites in the SIO air sampling
network, Trends: A Compendium of Data on Global Change, Oak Ridge National Laboratory, 2004.
"""

from __future__ import annotations

import numpy as np

from .libraries import library
from .memory import InMemoryData, Split
from .windows import bounds, windows_of

# Months of a season, of a window's inputs, and of what is forecast.
SEASON, PAST, HORIZON = 12, 48, 12


def seasonal_error(series: np.ndarray, season: int) -> float:
    """Returns the mean absolute change of a series (N,) from one season to the next: the error of
    the seasonal naive forecast by one step, which MASE divides by.
    """
    return float(np.abs(series[season:] - series[:-season]).mean())


def monthly(weeks: np.ndarray, ppm: np.ndarray) -> np.ndarray:
    """Returns the mean of each calendar month, (months,).

    weeks: datetime64 (N,), ascending; ppm: (N,), NaN where nothing was measured. A month without a
    week in it lies on the line between its neighbours.
    """
    month = weeks.astype("datetime64[M]").astype(np.int64)
    month -= month[0]
    measured = np.isfinite(ppm)
    counts = np.bincount(month[measured], minlength=month[-1] + 1)
    sums = np.bincount(month[measured], weights=ppm[measured], minlength=month[-1] + 1)
    months = np.arange(len(counts))
    return np.interp(months, months[counts > 0], sums[counts > 0] / counts[counts > 0])


class CO2(InMemoryData):
    """48 months (48,), and the 12 months after them (12,).

    Their zero is the training split's mean and their unit its mean absolute change within a year,
    so that a mean absolute error in that unit is the MASE. The splits follow each other in time:
    the first 60 % of the months, 20 %, 20 %.
    """

    def read(self) -> dict[str, np.ndarray]:
        weekly = library("statsmodels.datasets.co2", "statsmodels").load_pandas().data["co2"]
        return {"weeks": weekly.index.to_numpy("datetime64[D]").astype(np.int64), "ppm": weekly.to_numpy()}

    def prepare(self, raw: dict[str, np.ndarray]) -> dict[str, Split]:
        series = monthly(raw["weeks"].astype("datetime64[D]"), raw["ppm"])
        begin, end = bounds(len(series))["train"]
        train = series[begin:end]
        return windows_of((series - train.mean()) / seasonal_error(train, SEASON), PAST, HORIZON)
