"""Tokens that are hidden, so that a network learns to say what they were.

Devlin and others, BERT, https://arxiv.org/abs/1810.04805: of the tokens to be said four in five are
hidden, one in ten is another token, one in ten stays.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .unknown import UNKNOWN

# Share of the tokens that are to be said, and of those the shares hidden and replaced.
SHARE, HIDDEN, REPLACED = 0.15, 0.8, 0.1


def masked(
    tokens: Tensor, vocabulary: int, share: float = SHARE, random: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Returns what the network sees of tokens (N, T) and what it is to say: the tokens that were
    drawn, UNKNOWN elsewhere.

    vocabulary: of the tokens, without the hidden one, which is that number. random: None for
    torch's own random numbers.
    """
    drawn, kind = torch.rand(2, *tokens.shape, generator=random)
    others = torch.randint(vocabulary, tokens.shape, generator=random)
    drawn, kind, others = drawn.to(tokens.device), kind.to(tokens.device), others.to(tokens.device)
    chosen = drawn < share
    seen = torch.where(chosen & (kind < HIDDEN), vocabulary, tokens)
    seen = torch.where(chosen & (kind >= HIDDEN) & (kind < HIDDEN + REPLACED), others, seen)
    return seen, torch.where(chosen, tokens, UNKNOWN)
