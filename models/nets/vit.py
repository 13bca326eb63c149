"""Vision transformer with a class token, learned positions, pre-norm blocks and GELU.

After Dosovitskiy and others, An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929, with
the sizes of DeiT-Tiny (width 192, 3 heads; Touvron and others, https://arxiv.org/abs/2012.12877).
The default has 4 blocks instead of Tiny's 12, so that it trains within about a minute; preset
`tiny` has all 12 for the same 32x32 images, preset `base` is ViT-B/16 at 224x224.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...perf.terms.case import Workload
from .. import workload
from ..classifier import Classifier
from ..data.digits import Digits
from ..trainable import Recipe


class SelfAttention(nn.Module):
    """Attention of each patch to all patches."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, H, T, D)
        q, k, v = qkv.unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)  # (B, H, T, D)
        return self.out(y.transpose(1, 2).flatten(2))


class EncoderBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


# As it is trained by default.
RECIPE = Recipe(learning_rate=5e-4, weight_decay=0.05)


class ViT(Classifier):
    """Patches, class token, positions, blocks, norm, and an output layer on the class token."""

    data = Digits
    item = "image"

    def __init__(
        self,
        width: int = 192,
        depth: int = 4,
        heads: int = 3,
        patch: int = 8,
        side: int = 32,
        classes: int = 10,
        recipe: Recipe = RECIPE,
    ) -> None:
        super().__init__(recipe)
        self.save_hyperparameters(ignore="recipe")
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, (side // patch) ** 2 + 1, width) * 0.02)
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def example(self) -> Tensor:
        side = self.hparams["side"]
        return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))

    def forward(self, images: Tensor) -> Tensor:  # (B, 3, S, S) -> (B, classes)
        x = self.patches(images).flatten(2).transpose(1, 2)  # (B, N, C)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions  # (B, N + 1, C)
        x = self.norm(self.blocks(x))
        return self.head(x[:, 0])


# Preset name -> constructor arguments that differ from the defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "": {},
    "tiny": {"depth": 12},
    "base": {"width": 768, "depth": 12, "heads": 12, "patch": 16, "side": 224, "classes": 1000},
}


def load(preset: str = "") -> Workload:
    """The network as a workload; see `hotlap.models.workload`."""
    return workload.load(ViT, PRESETS, preset)


def ready(report: Callable[[str], None]) -> None:
    """Trains the network unless that was done; see `hotlap.models.workload`."""
    workload.ready(ViT, report)
