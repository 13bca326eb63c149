"""Networks that put an image into a short code and make it anew: images (B, C, H, W) in 0..1, the
logits of the pixels made anew in the same shape.

Training maximises a bound on the likelihood of the images (the evidence lower bound, ELBO): Kingma
and Welling, Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114. A code is drawn in
training and for the bound; `forward` takes the mean of the codes and draws nothing.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio
from torchmetrics.functional.regression import mean_squared_error

from .data.digits import MAX_PIXEL
from .data.order import generator
from .trainable import Trainable


def kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Returns the divergence of normal codes (B, D) from the standard normal, (B,), nats."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=1)


def surprise(logits: Tensor, images: Tensor, count: int = MAX_PIXEL) -> Tensor:
    """Returns the negative log likelihood of each image, (B,), nats.

    A pixel is the share of `count` dots that are set, so it is binomial, with the sigmoid of its
    logit for the probability of each.
    """
    dots = images * count
    ways = torch.lgamma(torch.tensor(count + 1.0)) - torch.lgamma(dots + 1) - torch.lgamma(count - dots + 1)
    pixels = count * F.binary_cross_entropy_with_logits(logits, images, reduction="none") - ways
    return pixels.flatten(1).sum(dim=1)


class Autoencoder(Trainable):
    """A network scored by the mean squared error of the pixels, which decides, and by the peak
    signal-to-noise ratio, dB.

    Its negative ELBO is logged for every split: nats an image, with codes that are the same each
    time.
    """

    metric = "mse"
    better = "lower"
    item = "image"

    @abstractmethod
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the codes, (B, D) each."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """The logits of the images that codes (B, D) stand for."""

    def forward(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, H, W)
        mean, _ = self.encode(images)
        return self.decode(mean)

    @classmethod
    def loss(cls, logits: Tensor, targets: Tensor) -> Tensor:
        return surprise(logits, targets).mean()

    @classmethod
    def score(cls, logits: Tensor, targets: Tensor) -> dict[str, float]:
        images = logits.sigmoid()
        return {
            "mse": float(mean_squared_error(images, targets)),
            "psnr": float(peak_signal_noise_ratio(images, targets, data_range=1.0)),
        }

    def negative_elbo(self, images: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Returns the mean over the images of surprise and divergence, nats.

        noise: standard normal (B, D); the code is its mean and so many standard deviations.
        """
        mean, log_variance = self.encode(images)
        codes = mean + noise * (0.5 * log_variance).exp()
        return self.loss(self.decode(codes), targets) + kl(mean, log_variance).mean()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, targets = batch
        noise = torch.randn(len(images), self.hparams["code"], device=images.device)
        loss = self.negative_elbo(images, targets, noise)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(images))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        images, targets = batch
        noise = torch.randn(len(images), self.hparams["code"], generator=generator(0, "codes", batch_idx))
        split = "test" if self.trainer.testing else "validation"
        bound = self.negative_elbo(images, targets, noise.to(images))
        self.log(f"{split}_negative_elbo", bound, on_epoch=True, batch_size=len(images))
