"""Decoder-only language model.

It has RMSNorm, rotary positions, causal attention, SwiGLU, and its embedding and output weights are
tied.

Rotary embeddings: Su and others, RoFormer, https://arxiv.org/abs/2104.09864, in the half-split
layout of GPT-NeoX; SwiGLU: Shazeer, https://arxiv.org/abs/2002.05202; RMSNorm: Zhang and Sennrich,
https://arxiv.org/abs/1910.07467; tied weights: Press and Wolf, https://arxiv.org/abs/1608.05859.
The default reads bytes; preset `124m` has the sizes of GPT-2 small (vocabulary padded to a multiple
of 64).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...perf.terms.case import Workload
from .. import workload
from ..data.stdlib_source import StdlibSource
from ..language_model import LanguageModel
from ..trainable import Recipe


class Rotary(nn.Module):
    """Turns the pair (x[i], x[i + D/2]) at position t by the angle t * base**(-2i/D).

    RoFormer's base is 10000. There are no parameters, and the tables are not saved.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, head_dim: int, context: int, base: float = 10000.0) -> None:
        super().__init__()
        frequencies = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)  # (D / 2,)
        angles = torch.arange(context, dtype=torch.float64)[:, None] * frequencies  # (context, D / 2)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # (..., T, D) -> (..., T, D)
        cos, sin = self.cos[: x.shape[-2]], self.sin[: x.shape[-2]]  # (T, D / 2)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class CausalSelfAttention(nn.Module):
    """Attention of each token to itself and those before it, over rotated queries and keys."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.rotary = Rotary(width // heads, context)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, H, T, D)
        q, k = self.rotary(qkv[:2])
        y = F.scaled_dot_product_attention(q, k, qkv[2], is_causal=True)  # (B, H, T, D)
        return self.out(y.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)).

    The hidden width is 8/3 of the width, rounded up to a multiple of 64.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = -(-width * 8 // (3 * 64)) * 64
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        return self.down(F.silu(self.gate(x)) * self.up(x))


# How a token's features are brought to one scale; layer also takes their mean away and adds a bias.
NORMS = {"rms": nn.RMSNorm, "layer": nn.LayerNorm}


class DecoderBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, context: int, norm: str = "rms") -> None:
        super().__init__()
        self.norm1 = NORMS[norm](width, eps=1e-6)
        self.attention = CausalSelfAttention(width, heads, context)
        self.norm2 = NORMS[norm](width, eps=1e-6)
        self.mlp = SwiGLU(width)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


# As it is trained by default.
RECIPE = Recipe(learning_rate=3e-3, weight_decay=0.1)


class GPT(LanguageModel):
    """Embedding, blocks, norm and output layer; residual outputs begin small, as in GPT-2.

    norm: which of NORMS.
    """

    data = StdlibSource

    def __init__(
        self,
        vocabulary: int = 256,
        context: int = 128,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        norm: Literal["rms", "layer"] = "rms",
        recipe: Recipe = RECIPE,
    ) -> None:
        super().__init__(recipe)
        self.save_hyperparameters(ignore="recipe")
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.Sequential(*(DecoderBlock(width, heads, context, norm) for _ in range(depth)))
        self.norm = NORMS[norm](width, eps=1e-6)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embedding.weight
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * depth) ** 0.5 if residual else 0.02)

    def example(self) -> Tensor:
        shape = (1, self.hparams["context"])
        return torch.randint(self.hparams["vocabulary"], shape, generator=torch.Generator().manual_seed(0))

    def forward(self, tokens: Tensor) -> Tensor:  # (B, T) int64 -> (B, T, V)
        x = self.embedding(tokens)  # (B, T, C)
        return self.head(self.norm(self.blocks(x)))


# Preset name -> constructor arguments that differ from the defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "": {},
    "124m": {"vocabulary": 50304, "context": 1024, "width": 768, "depth": 12, "heads": 12},
}


def load(preset: str = "") -> Workload:
    """The network as a workload; see `hotlap.models.workload`."""
    return workload.load(GPT, PRESETS, preset)


def ready(report: Callable[[str], None]) -> None:
    """Trains the network unless that was done; see `hotlap.models.workload`."""
    workload.ready(GPT, report)
