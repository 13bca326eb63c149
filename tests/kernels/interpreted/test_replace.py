"""Model surgery on our networks and on a user's own: what is replaced, what stays, the numbers,
undoing, and everything that a trace could get wrong.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from hotlap.kernels import dispatch, replace, restore
from hotlap.kernels.contract import Unsupported
from hotlap.models.nets.gpt import GPT
from hotlap.models.nets.resnet import ResNet18
from hotlap.models.nets.vit import ViT

F = nn.functional


class UserModule(nn.Module):
    """A user's module: the functions in other spellings, between other computations."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.up, self.gate = nn.Linear(16, 24), nn.Linear(16, 24)
        self.down = nn.Linear(24, 16)
        self.scale = 2.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(x)
        h = self.down(torch.mul(self.up(h), F.silu(self.gate(h))))
        return torch.softmax((h + x) * self.scale, dim=-1)


def small(net: type[nn.Module]) -> tuple[nn.Module, torch.Tensor]:
    """A network with an input, in evaluation.

    ResNet has 16 channels: with 8, torch 2.14.1's own bf16 convolution in channels-last writes
    beyond its memory in the backward pass (seen with avx512_bf16, in eager).
    """
    module = {
        GPT: lambda: GPT(64, 16, 32, 2, 2),
        ViT: lambda: ViT(width=48, depth=1),
        ResNet18: lambda: ResNet18((16, 16, 16, 16)),
        UserModule: UserModule,
    }[net]()
    return module.eval(), torch.randn(3, 5, 16) if net is UserModule else module.example()


# Network -> the operations that are in it.
REPLACED = {
    GPT: {"add_rms_norm", "rms_norm", "rotary", "swiglu"},
    ViT: {"add_layer_norm", "layer_norm", "bias_gelu"},
    ResNet18: {"batch_norm"},
    UserModule: {"layer_norm", "swiglu", "softmax"},
}


@pytest.mark.parametrize("net", REPLACED)
def test_what_is_found_and_that_nothing_else_changes(net: type[nn.Module]) -> None:
    module, x = small(net)
    before = list(module.state_dict())
    expected = module(x)
    names = [name for name, _ in module.named_modules()]
    own = {name: type(child) for name, child in module.named_modules()}
    report = replace(module)
    assert {entry.operation for entry in report.replaced} == REPLACED[net]
    assert (
        list(module.state_dict()) == before
        and [name for name, _ in module.named_modules()] == names
        and isinstance(module, net)
    )
    assert torch.equal(module(x), expected), "on a CPU the same aten operators run"
    assert not dispatch.launched
    twin = copy.deepcopy(module)
    assert torch.equal(twin(x), expected)
    assert restore(module) > 0 and {name: type(child) for name, child in module.named_modules()} == own
    assert torch.equal(module(x), expected) and restore(module) == 0


@pytest.mark.parametrize("net", REPLACED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_and_gradients_with_triton(net: type[nn.Module], dtype: torch.dtype) -> None:
    module, x = small(net)
    module.train()
    exact = copy.deepcopy(module).double()
    x = x.to(dtype) if x.is_floating_point() else x
    module.to(dtype)
    twin = copy.deepcopy(module)
    replace(twin)
    outputs = {}
    with dispatch.using("interpret"):
        outputs["ours"] = run(twin, x)
    outputs["eager"] = run(module, x)
    outputs["exact"] = run(exact, x.double() if x.is_floating_point() else x)
    assert dispatch.launched and not dispatch.fallbacks
    for mine, theirs, true in zip(outputs["ours"], outputs["eager"], outputs["exact"], strict=True):
        allowed = 3 * rms(theirs.double() - true) + 0.5 * torch.finfo(dtype).eps * rms(true)
        assert rms(mine.double() - true) <= allowed


def run(module: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Returns the output, all gradients of parameters in one vector, and all statistics in one."""
    y = module(x)
    slopes = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape).to(y.dtype)
    gradients = torch.autograd.grad(y, list(module.parameters()), slopes)
    statistics = [buffer.flatten() for buffer in module.buffers() if buffer.is_floating_point()]
    return [
        y,
        torch.cat([gradient.flatten() for gradient in gradients]),
        torch.cat([torch.zeros(1, dtype=y.dtype), *statistics]),
    ]


def rms(values: torch.Tensor) -> float:
    return float(values.detach().square().mean().sqrt())


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("net", REPLACED)
def test_compiled_after_replacing_without_a_graph_break(net: type[nn.Module], gradients: bool) -> None:
    module, x = small(net)
    module.train()
    replace(module)
    with dispatch.using("interpret"), torch.set_grad_enabled(gradients):
        expected = module(x)
        dispatch.reset()
        result = torch.compile(module, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(result, expected)
    assert dispatch.launched and not dispatch.fallbacks


def test_batch_norm_keeps_its_statistics_and_its_evaluation() -> None:
    module, x = small(ResNet18)
    replace(module)
    with dispatch.using("interpret"):
        module(x)
        # Evaluation is aten: an affine map that a compiler folds into the convolution.
        assert not dispatch.launched and not dispatch.fallbacks
        module.train()
        module(x)
    assert dispatch.launched["batch_norm"] == 20 and module.stem[1].num_batches_tracked == 1


def test_a_compiled_model_is_refused() -> None:
    module, _ = small(UserModule)
    with pytest.raises(Unsupported, match=r"is compiled already.*replace first, then torch.compile"):
        replace(torch.compile(module))
    module.up.compile()
    with pytest.raises(Unsupported, match="up is compiled already"):
        replace(module)


def test_only_what_is_asked_for() -> None:
    module, _ = small(UserModule)
    assert {entry.operation for entry in replace(module, only=["swiglu"]).replaced} == {"swiglu"}
    with pytest.raises(ValueError, match="did you mean layer_norm"):
        replace(module, only=["layernorm"])
    gpt, tokens = small(GPT)
    expected = gpt(tokens)
    assert {entry.operation for entry in replace(gpt, only=["attention"]).replaced} == {"attention"}
    with dispatch.using("interpret"):
        torch.testing.assert_close(gpt(tokens), expected)
    assert dispatch.launched["attention"] == 2


def test_attention_stays_torch_s_own_and_that_is_said() -> None:
    report = replace(small(GPT)[0])
    assert any("attention stays with torch's own kernels" in entry.why for entry in report.kept)
    assert "blocks.0.mlp: swiglu" in str(report)


def test_what_was_fixed_by_the_trace_restores_the_module_when_it_is_set() -> None:
    module, x = small(UserModule)
    replace(module)
    module.scale = 3.0
    assert type(module) is UserModule and any(
        "UserModule.scale was set after replace" in why for _, why in dispatch.fallbacks
    )
    other = small(UserModule)[0]
    other.load_state_dict(module.state_dict())
    other.scale = 3.0
    assert torch.equal(module(x), other(x))


def test_a_child_that_is_set_later_is_used() -> None:
    block = small(GPT)[0].blocks[0]
    replace(block)
    block.norm2 = nn.Identity()
    assert type(block).__name__ == "DecoderBlock" and not hasattr(type(block), "hotlap_replaced")


class Optional(nn.Module):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return torch.softmax(x if mask is None else x + mask, -1)


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x, -1) if x.sum() > 0 else x


class Training(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(F.dropout(x, 0.5, self.training), -1)


class Random(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x + torch.rand(4), -1)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (Optional(), "optional arguments"),
        (Branches(), "cannot be followed"),
        (Training(), "differs between training and evaluation"),
        (Random(), "depend on no input"),
    ],
)
def test_what_a_trace_would_get_wrong_stays(module: nn.Module, why: str) -> None:
    x = torch.rand(2, 4)
    report = replace(module)
    assert report.replaced == () and why in report.kept[0].why
    assert vars(module).keys() == vars(type(module)()).keys()
    with dispatch.using("interpret"):
        module(x)
    assert not dispatch.launched


def test_a_child_with_hooks_is_not_fused_away() -> None:
    block = small(GPT)[0].blocks[0]
    calls: list[Any] = []
    block.norm2.register_forward_hook(lambda *_: calls.append(1))
    report = replace(block)
    assert "add_rms_norm" not in {entry.operation for entry in report.replaced}
    block(torch.randn(1, 4, 32))
    assert calls == [1]


class Leaking(nn.Module):
    """The inner value of the pattern is used elsewhere too."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        gate = F.silu(a)
        return gate * b + gate


class Same(nn.Module):
    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return F.gelu(a + a, approximate="tanh")


@pytest.mark.parametrize("module", [Leaking(), Same()])
def test_what_only_looks_like_an_operation_is_none(module: nn.Module) -> None:
    assert replace(module).replaced == ()


def test_a_sum_that_broadcasts_falls_back_and_is_right() -> None:
    class Broadcast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.RMSNorm(8, eps=1e-6)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.norm(x + y)

    module, x, y = Broadcast(), torch.randn(4, 8), torch.randn(8)
    expected = module(x, y)
    replace(module)
    with dispatch.using("interpret"):
        result = module(x, y)
    assert torch.equal(result, expected)
    assert [name for name, _ in dispatch.fallbacks] == ["add_rms_norm"]
