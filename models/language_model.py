"""Networks that predict the next token: tokens and targets (B, T), logits (B, T, V)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy
from torchmetrics.functional.text import perplexity

from .data.unknown import UNKNOWN
from .trainable import Trainable


class LanguageModel(Trainable):
    """A network scored by perplexity per token, which decides, by bits per byte, and by the share
    of tokens that it would have guessed.

    A token is a byte; one whose target is UNKNOWN is neither trained on nor scored.
    """

    metric = "perplexity"
    better = "lower"
    # 0.7 % of the perplexity of 7.34 that the default network reaches on its validation split.
    budget = 0.05
    # 3 % of the same.
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
        """Returns perplexity, exp of the mean of -ln p over all tokens; bits per byte, the mean of
        -log2 p; and token accuracy.
        """
        per_token = float(perplexity(logits, targets, ignore_index=UNKNOWN))
        rows = logits.flatten(0, 1)  # (B T, V)
        guessed = multiclass_accuracy(
            rows, targets.flatten(), rows.shape[-1], average="micro", ignore_index=UNKNOWN
        )
        return {
            "perplexity": per_token,
            "bits_per_byte": math.log2(per_token),
            "token_accuracy": float(guessed),
        }
