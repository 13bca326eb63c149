"""The optimizer against torch's own: on a CPU, through the interpreter, across checkpoints, groups,
dtypes and layouts.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from hotlap.kernels import AdamW, chunks, dispatch
from hotlap.kernels.contract import Unsupported
from hotlap.kernels.ops import total_norm


def model() -> nn.Module:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 300), nn.GELU(), nn.Linear(300, 2)
    )
    module[0].to(memory_format=torch.channels_last)
    return module


def groups(module: nn.Module) -> list[dict[str, Any]]:
    return [
        {"params": [param for param in module.parameters() if param.ndim > 1], "weight_decay": 0.1},
        {"params": [param for param in module.parameters() if param.ndim == 1], "weight_decay": 0.0},
    ]


def train(
    module: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5, clip: float = 0.0
) -> list[torch.Tensor]:
    """Returns the parameters after some steps on batches that are the same each time."""
    for step in range(steps):
        x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        module(x).square().sum().backward()
        if clip:
            nn.utils.clip_grad_norm_(module.parameters(), clip)
        optimizer.step()
    return [param.detach() for param in module.parameters()]


@pytest.mark.parametrize("mode", ["auto", "interpret"])
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_steps_are_those_of_torch(mode: str, clip: float) -> None:
    ours = model()
    theirs = copy.deepcopy(ours)
    with dispatch.using(mode):  # type: ignore[arg-type]
        optimizer = AdamW(groups(ours), lr=1e-2, max_norm=clip)
        params = train(ours, optimizer)
    expected = train(theirs, torch.optim.AdamW(groups(theirs), lr=1e-2), clip=clip)
    for mine, other in zip(params, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=2e-6)
    assert (optimizer.total_norm is not None) == bool(clip)


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_a_checkpoint_of_the_one_goes_on_in_the_other(first: str) -> None:
    module = model()
    kinds = {"ours": AdamW, "theirs": torch.optim.AdamW}
    second = next(name for name in kinds if name != first)
    optimizer = kinds[first](groups(module), lr=1e-2)
    train(module, optimizer, 3)
    stored, resumed = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(module)
    other = kinds[second](groups(resumed), lr=1e-2)
    other.load_state_dict(stored)
    for mine, theirs in zip(train(module, optimizer, 3), train(resumed, other, 3), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("mode", ["auto", "interpret"])
def test_a_checkpoint_of_another_memory_format(mode: str) -> None:
    first = nn.Conv2d(3, 8, 3)
    theirs = torch.optim.AdamW(first.parameters(), lr=1e-2)
    second = copy.deepcopy(first).to(memory_format=torch.channels_last)
    ours = AdamW(second.parameters(), lr=1e-2)
    for step in range(3):
        for module, optimizer in ((first, theirs), (second, ours)):
            optimizer.zero_grad()
            x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(step))
            module(x).square().sum().backward()
            with dispatch.using(mode):  # type: ignore[arg-type]
                optimizer.step()
        ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    for mine, other in zip(second.parameters(), first.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("setting", ["amsgrad", "maximize"])
def test_a_checkpoint_that_only_torch_s_can_go_on_with(setting: str) -> None:
    theirs = torch.optim.AdamW([nn.Parameter(torch.ones(1))], **{setting: True})
    with pytest.raises(ValueError, match=f"AdamW has no {setting}"):
        AdamW([nn.Parameter(torch.ones(1))]).load_state_dict(theirs.state_dict())


def test_states_stay_fp32_in_a_checkpoint_of_bf16_parameters() -> None:
    param = nn.Parameter(torch.randn(40, dtype=torch.bfloat16))
    optimizer = AdamW([param])
    param.grad = torch.randn_like(param)
    optimizer.step()
    again = AdamW([param])
    again.load_state_dict(optimizer.state_dict())
    assert again.state[param]["exp_avg"].dtype == torch.float32
    assert torch.equal(again.state[param]["exp_avg_sq"], optimizer.state[param]["exp_avg_sq"])


def test_dtypes_together_parameters_without_gradients_and_a_schedule() -> None:
    parameters = [
        nn.Parameter(torch.randn(9)),
        nn.Parameter(torch.randn(7, dtype=torch.float16)),
        nn.Parameter(torch.randn(5)),
    ]
    before = [param.detach().clone() for param in parameters]
    optimizer = AdamW(parameters, lr=0.1, max_norm=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    with dispatch.using("interpret"):
        for _ in range(3):
            for param in parameters[:2]:
                param.grad = torch.ones_like(param)
            optimizer.step()
            schedule.step()
    assert (
        not torch.equal(parameters[0], before[0])
        and not torch.equal(parameters[1], before[1])
        and torch.equal(parameters[2], before[2])
    )
    assert abs(float(optimizer.total_norm) - 4.0) < 1e-3


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"betas": (0.9, 1.0)}, {"max_norm": -1.0}])
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="AdamW: lr"):
        AdamW([nn.Parameter(torch.ones(1))], **wrong)


def test_tables_are_made_once_for_the_same_memory_and_never_in_a_capture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built_of = []
    new_tables = chunks.new_tables

    def counted(addresses: Any, *rest: Any) -> Any:
        built_of.append(addresses)
        return new_tables(addresses, *rest)

    monkeypatch.setattr(chunks, "new_tables", counted)
    monkeypatch.setattr(chunks, "TABLES", OrderedDict())
    monkeypatch.setattr(chunks, "CAPTURED", [])

    def norm(tensors: list[torch.Tensor]) -> float:
        return float(total_norm.forward(tensors)[0])

    with dispatch.using("interpret"):
        lists = [[torch.full((3, 5), value), torch.full((7,), value)] for value in (1.0, 2.0)]
        for tensors in lists:
            assert norm(tensors) == pytest.approx(float(tensors[0][0, 0]) * 22**0.5)
        lists[0][1].fill_(3.0)
        assert norm(lists[0]) == pytest.approx((15 + 9 * 7) ** 0.5)
        assert len(built_of) == 2
        monkeypatch.setattr(chunks, "capturing", lambda device: True)
        assert norm(lists[1]) == pytest.approx(2.0 * 22**0.5)
        assert len(built_of) == 2 and len(chunks.CAPTURED) == 1
        with pytest.raises(Unsupported, match="capture of a CUDA graph; call it once before"):
            chunks.make_tables([[torch.ones(4)]], 16)
        monkeypatch.setattr(chunks, "capturing", lambda device: False)
        kept = [torch.ones(4) for _ in range(chunks.MOST + 3)]
        for tensor in kept:
            chunks.make_tables([[tensor]], 16)
        assert len(chunks.TABLES) == chunks.MOST
