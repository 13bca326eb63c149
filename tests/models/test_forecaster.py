"""Forecasts: months of carbon dioxide, windows in the order of time, causality, MASE."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hotlap.models.data.co2 import CO2, HORIZON, PAST, SEASON, monthly, seasonal_error
from hotlap.models.data.windows import bounds, windows_of
from hotlap.models.forecaster import Forecaster
from hotlap.models.nets.tcn import TCN, CausalConv, TemporalBlock


@pytest.fixture(scope="module")
def data() -> CO2:
    data = CO2()
    data.setup()
    return data


def test_a_causal_convolution_is_the_sum_over_earlier_steps() -> None:
    convolution = CausalConv(1, 1, size=3, dilation=2)
    torch.nn.init.ones_(convolution.conv.weight)
    torch.nn.init.zeros_(convolution.conv.bias)
    steps = torch.arange(1.0, 9.0)[None, None]  # (1, 1, 8)
    expected = [1, 2, 4, 6, 9, 12, 15, 18]  # x[t] + x[t - 2] + x[t - 4]
    assert convolution(steps).flatten().tolist() == expected


def test_a_later_value_changes_no_earlier_feature() -> None:
    torch.manual_seed(0)
    blocks = TCN().eval().blocks
    values = torch.randn(2, 1, PAST)
    changed = values.clone()
    changed[:, :, 30] += 1
    before, after = blocks(values), blocks(changed)
    assert torch.equal(before[:, :, :30], after[:, :, :30])
    assert (before[:, :, 30:] != after[:, :, 30:]).any(dim=1).all()


def test_the_latest_step_sees_the_whole_window_and_no_more_than_is_said() -> None:
    torch.manual_seed(0)
    net = TCN().eval()
    values = torch.randn(1, 1, 80, requires_grad=True)
    net.blocks(values)[0, :, -1].sum().backward()
    assert values.grad is not None
    seen = values.grad.flatten().nonzero()
    assert 80 - int(seen.min()) == 1 + 2 * (3 - 1) * (2**4 - 1) == 61 >= PAST


def test_a_block_keeps_the_steps_and_its_output_is_not_negative() -> None:
    block = TemporalBlock(1, 8, size=3, dilation=4, dropout=0.1).eval()
    features = block(torch.randn(2, 1, 20))
    assert features.shape == (2, 8, 20) and (features >= 0).all()


def test_a_series_on_another_level_has_the_same_forecast_on_that_level() -> None:
    torch.manual_seed(0)
    net = TCN().eval()
    values = torch.randn(4, PAST)
    torch.testing.assert_close(net(values + 100), net(values) + 100, atol=1e-4, rtol=0)


def test_mase_of_the_seasonal_naive_forecast_within_the_training_split_is_one(data: CO2) -> None:
    """One step ahead, as Hyndman and Koehler define the error that is divided by."""
    inputs, targets = data.splits["train"]
    series = torch.cat([inputs[0], targets[0], targets[1:, -1]])
    assert len(series) == bounds(526)["train"][1]
    assert Forecaster.score(series[:-SEASON], series[SEASON:])["mase"] == pytest.approx(1, rel=1e-5)


def test_scores_of_forecasts_that_are_off_by_a_half() -> None:
    targets = torch.randn(7, HORIZON)
    assert Forecaster.score(targets, targets) == {"mase": 0, "rmse": 0}
    off = targets + 0.5
    assert Forecaster.score(off, targets) == pytest.approx({"mase": 0.5, "rmse": 0.5}, rel=1e-5)
    assert float(Forecaster.loss(off, targets)) == pytest.approx(0.5, rel=1e-5)


def test_splits_follow_each_other_and_no_target_is_in_two() -> None:
    """Each value is its own number, so a window tells which months it has."""
    splits = windows_of(np.arange(500.0), past=48, horizon=12)
    months = {name: set(targets.unique().tolist()) for name, (_, targets) in splits.items()}
    assert months["train"] == set(range(48, 300))
    assert months["validation"] == set(range(300, 400)) and months["test"] == set(range(400, 500))
    assert splits["train"][0].max() < 300 and splits["validation"][0].max() < 400
    for inputs, targets in splits.values():
        rows = torch.cat([inputs, targets], dim=1)
        assert (rows.diff(dim=1) == 1).all()


def test_zero_and_unit_are_those_of_the_training_split_alone(data: CO2) -> None:
    raw = data.read()
    later = {"weeks": raw["weeks"], "ppm": np.concatenate([raw["ppm"][:1600], raw["ppm"][1600:] * 3])}
    for ours, theirs in zip(data.splits["train"], CO2().prepare(later)["train"], strict=True):
        assert torch.equal(ours, theirs)


def test_months_are_means_of_their_weeks_and_gaps_are_bridged() -> None:
    weeks = np.array(["2000-01-01", "2000-01-08", "2000-02-05", "2000-04-01"], dtype="datetime64[D]")
    assert monthly(weeks, np.array([1.0, 3.0, np.nan, 8.0])).tolist() == [2, 4, 6, 8]


def test_months_are_those_that_pandas_makes_of_the_weeks(data: CO2) -> None:
    from statsmodels.datasets import co2

    theirs = co2.load_pandas().data["co2"].resample("MS").mean().interpolate().to_numpy()
    raw = data.read()
    np.testing.assert_allclose(monthly(raw["weeks"].astype("datetime64[D]"), raw["ppm"]), theirs)


def test_the_seasonal_error_is_the_mean_change_within_a_season() -> None:
    assert seasonal_error(np.array([0.0, 10, 1, 13]), season=2) == 2
