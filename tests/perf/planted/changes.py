"""Pairs of workloads that compute the same; the second one lost something that can be counted."""

import math

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, breaks: bool = False, by_hand: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 64), nn.Linear(64, 8)
        self.breaks, self.by_hand = breaks, by_hand

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        if self.breaks:
            torch._dynamo.graph_break()
        # GELU in a form that no pattern of a fusion knows.
        x = x * (torch.erf(x * math.sqrt(0.5)) * 0.25 + 0.25) * 2 if self.by_hand else nn.functional.gelu(x)
        return self.second(x)


def whole() -> tuple[nn.Module, torch.Tensor]:
    return Net(), torch.randn(4, 32)


def broken() -> tuple[nn.Module, torch.Tensor]:
    return Net(breaks=True), torch.randn(4, 32)


def unfused() -> tuple[nn.Module, torch.Tensor]:
    return Net(by_hand=True), torch.randn(4, 32)
