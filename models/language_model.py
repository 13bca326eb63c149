"""Networks that predict the next token: tokens and targets (B, T), logits (B, T, V)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from .trainable import Trainable


class LanguageModel(Trainable):
    """Scored by perplexity per token, which decides, and by bits per byte (a token being a byte).

    The budget of 0.05 (int8: 0.22, 3 %) is 0.7 % of the perplexity of 7.34 that the default
    byte-level network reaches on its validation split.
    """

    metric = "perplexity"
    better = "lower"
    budget = 0.05
    int8_budget = 0.22
    item = "token"

    @classmethod
    def items_per_sample(cls, inputs: Tensor) -> int:
        return inputs.shape[1]

    @classmethod
    def loss(cls, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    @classmethod
    def score(cls, logits: Tensor, targets: Tensor) -> dict[str, float]:
        from torchmetrics.functional.text import perplexity

        per_token = float(perplexity(logits, targets))
        return {"perplexity": per_token, "bits_per_byte": math.log2(per_token)}
