"""Small workloads that are not ours, made as a user would."""

import time

import torch
from torch import nn

import hotlap


def tiny() -> tuple[nn.Module, torch.Tensor]:
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)), torch.randn(1, 64)


def busy() -> tuple[nn.Module, torch.Tensor]:
    """Long enough a call, some milliseconds, that work in the wrong place shows."""
    layers = [nn.Linear(1024, 1024) for _ in range(4)]
    return nn.Sequential(*layers, nn.Linear(1024, 10)), torch.randn(8, 1024)


def heavy() -> tuple[nn.Module, torch.Tensor]:
    """4 MB of weights."""
    return nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)), torch.randn(1, 1024)


class SqueezeExcite(nn.Module):
    """timm-style block: global pooling, two 1x1 convolutions, a gate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = x.mean((2, 3), keepdim=True)
        return x * self.expand(nn.functional.silu(self.reduce(gate))).sigmoid()


class MobileNet(nn.Module):
    """Inverted residuals in the manner of timm's mobilenetv3."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.depthwise = nn.Sequential(
            nn.Conv2d(16, 64, 1),
            nn.Hardswish(),
            nn.Conv2d(64, 64, 3, padding=1, groups=64),
            SqueezeExcite(64),
            nn.Conv2d(64, 16, 1),
        )
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head((x + self.depthwise(x)).mean((2, 3)))


def mobilenet() -> hotlap.Workload:
    return hotlap.Workload("mobilenet", MobileNet(), (torch.randn(2, 3, 32, 32),), item="image")


def broken() -> tuple[nn.Module, torch.Tensor]:
    return nn.Linear(8, 4), torch.randn(1, 9)


class NotANumber(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / 0.0 - x / 0.0


def nan() -> tuple[nn.Module, torch.Tensor]:
    return NotANumber(), torch.randn(1, 8)


class Fixed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(4, -1).sum(1)


def fixed() -> hotlap.Workload:
    return hotlap.Workload("fixed", Fixed(), (torch.randn(4, 8),), dynamic=False)


@torch.library.custom_op("planted::only_here", mutates_args=(), device_types="cpu")
def only_here_(x: torch.Tensor) -> torch.Tensor:
    return x.cumsum(-1)


@only_here_.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class OnlyHere(nn.Module):
    """An operator without a kernel for CUDA, between layers that have one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(16, 16), nn.LayerNorm(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(only_here_(self.layer(x)))


def only_here() -> tuple[nn.Module, torch.Tensor]:
    return OnlyHere(), torch.randn(2, 16)


def raises() -> None:
    raise KeyError("no such file of weights")


def slow_to_make() -> tuple[nn.Module, torch.Tensor]:
    time.sleep(60)
    return tiny()
