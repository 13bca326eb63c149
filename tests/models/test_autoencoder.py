"""The bound, the code and the data of the variational autoencoder."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Binomial, Normal, kl_divergence

from hotlap.models.autoencoder import Autoencoder, kl, surprise
from hotlap.models.data.digit_pixels import DigitPixels
from hotlap.models.data.digits import MAX_PIXEL, Digits
from hotlap.models.data.order import generator
from hotlap.models.nets.vae import PRESETS, VAE, Decoder, Encoder
from hotlap.models.train import train


@pytest.fixture
def net() -> VAE:
    torch.manual_seed(0)
    return VAE().eval()


def test_the_divergence_of_a_standard_normal_is_zero_and_else_that_of_torch() -> None:
    assert kl(torch.zeros(3, 8), torch.zeros(3, 8)).tolist() == [0, 0, 0]
    mean, log_variance = torch.randn(2, 5, 8, generator=generator(0, "test", 0))
    theirs = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(kl(mean, log_variance), theirs)


def test_the_surprise_is_that_of_binomial_pixels() -> None:
    logits = torch.randn(3, 1, 8, 8, generator=generator(0, "test", 1))
    dots = torch.randint(0, MAX_PIXEL + 1, logits.shape, generator=generator(0, "test", 2)).float()
    theirs = -Binomial(MAX_PIXEL, logits=logits).log_prob(dots).sum(dim=(1, 2, 3))
    torch.testing.assert_close(surprise(logits, dots / MAX_PIXEL), theirs)


def test_images_made_anew_without_error_are_scored_as_such() -> None:
    images = torch.rand(4, 1, 8, 8) * 0.8 + 0.1
    assert Autoencoder.score(images.logit(), images)["mse"] == pytest.approx(0, abs=1e-10)
    grey = Autoencoder.score(torch.zeros(4, 1, 8, 8), torch.full((4, 1, 8, 8), 0.6))
    assert grey == pytest.approx({"mse": 0.01, "psnr": 20.0}, rel=1e-4)


def test_forward_takes_the_mean_of_the_codes_and_draws_nothing(net: VAE) -> None:
    images = torch.rand(5, 1, 8, 8)
    before = torch.get_rng_state()
    with torch.no_grad():
        assert torch.equal(net(images), net(images))
        assert torch.equal(net(images), net.decode(net.encode(images)[0]))
        assert torch.equal(torch.get_rng_state(), before)
        without = net.negative_elbo(images, images, torch.zeros(5, 8))
        drawn = net.negative_elbo(images, images, torch.ones(5, 8))
        mean, log_variance = net.encode(images)
    torch.testing.assert_close(without, surprise(net(images), images).mean() + kl(mean, log_variance).mean())
    assert drawn != without


def test_the_gradient_reaches_the_encoder_through_a_drawn_code(net: VAE) -> None:
    images = torch.rand(5, 1, 8, 8)
    net.negative_elbo(images, images, torch.randn(5, 8)).backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in net.parameters())


def test_encoder_and_decoder_halve_and_double_twice() -> None:
    encoder, decoder = Encoder(4, side=16, code=3), Decoder(4, side=16, code=3)
    mean, log_variance = encoder(torch.rand(2, 1, 16, 16))
    assert mean.shape == log_variance.shape == (2, 3)
    assert not torch.equal(mean, log_variance)
    assert decoder(mean).shape == (2, 1, 16, 16)
    assert VAE(**PRESETS["large"]).example().shape == (1, 1, 64, 64)


def test_pixels_are_counts_of_dots_in_the_splits_of_the_digits() -> None:
    data, digits = DigitPixels(), Digits()
    data.setup()
    digits.setup()
    assert data.data_hash == digits.data_hash
    for name, (images, targets) in data.splits.items():
        assert images is targets or torch.equal(images, targets)
        assert images.shape == (len(digits.splits[name][0]), 1, 8, 8)
        dots = images * MAX_PIXEL
        assert torch.equal(dots, dots.round()) and dots.min() >= 0 and dots.max() == MAX_PIXEL


def test_training_lowers_the_bound_and_repeats_to_the_bit() -> None:
    lines: list[str] = []
    first, second = (train("vae", epochs=2, seed=3, report=lines.append) for _ in range(2))
    assert first.validation == second.validation and first.test == second.test
    assert set(first.validation) == {"mse", "psnr", "negative_elbo"}
    bounds = [float(line.partition("negative elbo ")[2].split(",")[0]) for line in lines]
    assert bounds[:2] == bounds[2:] and bounds[1] < bounds[0]
