"""Controls: fitted to the training split alone, scored as the networks are."""

from __future__ import annotations

import importlib

import pytest
import torch

from hotlap.models import controlled, controls
from hotlap.models.catalog import names, network
from hotlap.models.controls import bigram, principal_components, seasonal_drift, seasonal_naive
from hotlap.models.controls._rows import as_image, known_pixels, pixels, rows
from hotlap.models.data.digits import Digits
from hotlap.models.data.memory import Split
from hotlap.models.data.unknown import UNKNOWN
from hotlap.models.nets.mlp import MLP
from hotlap.models.nets.tcn import TCN


@pytest.mark.parametrize("name", names())
def test_every_network_has_a_control(name: str) -> None:
    assert controlled.control_names(name)


@pytest.mark.parametrize("name", controlled.control_names())
def test_a_control_answers_in_the_shape_of_its_networks(name: str) -> None:
    control = importlib.import_module(f"{controls.__name__}.{name}")
    assert control.NETWORKS and set(control.NETWORKS) <= set(names())
    net = network(control.NETWORKS[0])
    data = net.data()
    data.setup()
    few: Split = tuple(part[:: max(1, len(part) // 60)] for part in data.splits["train"])  # type: ignore[assignment]
    inputs, targets = (part[:7] for part in data.splits["validation"])
    outputs = control.outputs(few, inputs)
    with torch.inference_mode():
        assert outputs.shape == net().eval()(inputs).shape
    assert outputs.dtype == torch.float32 and outputs.isfinite().all()
    assert net.metric in net.score(outputs, targets)


def test_scores_are_the_networks_own_on_its_validation_split() -> None:
    scores = controlled.control_scores(MLP)
    assert set(scores) == {"gradient_boosting", "logistic_regression"}
    for values in scores.values():
        assert values.keys() >= {"accuracy", "f1_macro"} and values["accuracy"] > 0.95


def test_who_is_better_follows_the_metric() -> None:
    assert controlled.beats(MLP, 0.9, {"a": 0.8, "b": 0.89}) and not controlled.beats(MLP, 0.9, {"a": 0.9})
    assert controlled.beats(TCN, 0.4, {"a": 0.5}) and not controlled.beats(TCN, 0.4, {"a": 0.5, "b": 0.3})


def test_the_seasonal_forecasts_repeat_the_latest_year_and_add_the_growth() -> None:
    months = torch.arange(48.0)[None] // 12 * 2 + torch.arange(48.0)[None] % 12  # 2 more each year
    nothing = (torch.zeros(0, 48), torch.zeros(0, 12))
    assert torch.equal(seasonal_naive.outputs(nothing, months), months[:, -12:])
    assert torch.equal(seasonal_drift.outputs(nothing, months), months[:, -12:] + 2)


def test_the_bigram_has_the_shares_of_the_pairs() -> None:
    text = torch.tensor([[0, 1, 0, 1, 0, 2, 0]])
    log = bigram.outputs((text[:, :-1], text[:, 1:]), torch.tensor([[0, 5]]))
    assert log.shape == (1, 2, 256)
    torch.testing.assert_close(log.exp().sum(dim=-1), torch.ones(1, 2))
    assert log[0, 0, 1].exp() == pytest.approx((2 + 0.5) / (3 + 128))
    assert log[0, 1].exp().tolist() == pytest.approx([1 / 256] * 256)


def test_as_many_components_as_the_code_makes_images_of_that_many_kinds_anew() -> None:
    basis = torch.rand(8, 64, generator=torch.Generator().manual_seed(0)) / 8
    weights = torch.rand(40, 8, generator=torch.Generator().manual_seed(1))
    images = (weights @ basis).reshape(40, 1, 8, 8)
    anew = principal_components.outputs((images, images), images[:3]).sigmoid()
    torch.testing.assert_close(anew, images[:3], atol=1e-4, rtol=0)


def test_rows_of_digits_are_their_own_pixels_again() -> None:
    """To within what the upscaling smoothed."""
    digits = Digits()
    digits.setup()
    small = torch.from_numpy(digits.read()["images"]).float() / 16
    images = digits.prepare(digits.read())["validation"][0]
    table = torch.from_numpy(rows(images)).reshape(-1, 8, 8)
    nearest = torch.cdist(table.flatten(1), small.flatten(1)).min(dim=1).values
    assert table.shape == (360, 8, 8) and nearest.max() < 1.5


def test_pixels_are_rows_and_back_and_unknown_ones_are_left_out() -> None:
    images = torch.rand(2, 3, 4, 5)
    assert torch.equal(as_image(pixels(images), images), images)
    labels = torch.arange(40).reshape(2, 4, 5)
    labels[0, 0] = UNKNOWN
    values, classes = known_pixels((images, labels))
    assert classes.tolist() == list(range(5, 40))
    assert (values[0] == images[0, :, 1, 0].numpy()).all()
