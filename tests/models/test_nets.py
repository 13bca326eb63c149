"""Topology: shapes, parameter counts, what tokens and batches may know of each other, export."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch.export import Dim

from hotlap.models.catalog import names, network
from hotlap.models.nets.gpt import GPT, Rotary
from hotlap.models.nets.gpt import PRESETS as GPT_PRESETS
from hotlap.models.nets.resnet import PRESETS as RESNET_PRESETS
from hotlap.models.nets.resnet import ResNet18
from hotlap.models.nets.vit import PRESETS as VIT_PRESETS
from hotlap.models.nets.vit import ViT
from hotlap.models.trainable import Trainable

LOGITS = {
    "mlp": (3, 2),
    "resnet": (3, 10),
    "vit": (3, 10),
    "gpt": (3, 128, 256),
    "tcn": (3, 12),
    "unet": (3, 2, 32, 32),
    "vae": (3, 1, 8, 8),
}


def batch_of_three(net: Trainable) -> torch.Tensor:
    """Three different samples of the shape of the example."""
    example = net.example()
    return torch.cat([example, example.flip(-1), example.roll(1, -1)])


def build(name: str) -> Trainable:
    torch.manual_seed(0)
    return network(name)().eval()


def test_the_networks_are_found_by_their_files() -> None:
    assert names() == sorted(LOGITS)


@pytest.mark.parametrize("name", names())
def test_logits_have_the_documented_shape(name: str) -> None:
    net = build(name)
    assert tuple(net(batch_of_three(net)).shape) == LOGITS[name]


def test_a_gpt_may_have_layer_norms() -> None:
    torch.manual_seed(0)
    layer, rms = GPT(norm="layer"), GPT()
    # LayerNorm has a bias beside each of the nine scales, and takes the mean of the features away.
    assert sum(p.numel() for p in layer.parameters()) - sum(p.numel() for p in rms.parameters()) == 9 * 128
    x = torch.randn(2, 128)
    torch.testing.assert_close(layer.norm(x + 5), layer.norm(x), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(rms.norm(x + 5), rms.norm(x), atol=0.1)


@pytest.mark.parametrize("name", names())
def test_samples_of_a_batch_do_not_influence_each_other(name: str) -> None:
    net = build(name)
    batch = batch_of_three(net)
    with torch.inference_mode():
        together = net(batch)
        alone = torch.cat([net(batch[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("name", names())
def test_forward_is_declared_on_tensors_only(name: str) -> None:
    signature = inspect.signature(network(name).forward)
    assert [parameter.annotation for parameter in signature.parameters.values()][1:] == ["Tensor"]
    assert signature.return_annotation == "Tensor"


def count(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_parameter_counts_are_those_of_the_published_networks() -> None:
    """ResNet-18 and ViT-B/16 have as many parameters as torchvision counts.

    Those of 124m are counted by hand: 50304*768 + 12*(4*768**2 + 3*768*2048 + 2*768) + 768.
    """
    with torch.device("meta"):
        assert count(ResNet18(**RESNET_PRESETS["full"])) == 11_689_512
        assert count(ViT(**VIT_PRESETS["base"])) == 86_567_656
    # On the CPU: on the meta device the weights would not stay tied.
    assert count(GPT(**GPT_PRESETS["124m"])) == 123_587_328


def test_resnet_full_halves_the_image_five_times() -> None:
    net = ResNet18(**RESNET_PRESETS["full"]).eval()
    with torch.inference_mode():
        stem = net.stem(torch.zeros(1, 3, 224, 224))
        assert stem.shape == (1, 64, 56, 56)
        assert net.blocks(stem).shape == (1, 512, 7, 7)


def test_a_later_token_does_not_change_earlier_logits() -> None:
    net = build("gpt")
    tokens = batch_of_three(net)
    changed = tokens.clone()
    changed[:, 60] = (changed[:, 60] + 1) % 256
    with torch.inference_mode():
        before, after = net(tokens), net(changed)
    torch.testing.assert_close(before[:, :60], after[:, :60])
    assert (before[:, 60:] != after[:, 60:]).any(dim=-1).all()  # every later position sees the change


def test_rotary_turns_complex_numbers() -> None:
    """The independent formulation: (x[i] + j x[i + D/2]) * exp(j t / base**(2i/D))."""
    x = torch.randn(2, 3, 17, 8, dtype=torch.float64)
    pairs = torch.complex(x[..., :4], x[..., 4:])
    angle = torch.arange(17, dtype=torch.float64)[:, None] / 10000.0 ** (
        torch.arange(4, dtype=torch.float64) / 4
    )
    turned = pairs * torch.exp(1j * angle)
    expected = torch.cat([turned.real, turned.imag], dim=-1)
    torch.testing.assert_close(Rotary(8, context=32)(x), expected, atol=1e-6, rtol=1e-6)


def test_rotary_tables_are_not_saved_and_weights_are_tied() -> None:
    net = build("gpt")
    assert not [key for key in net.state_dict() if "rotary" in key]
    assert net.head.weight is net.embedding.weight


@pytest.mark.parametrize("name", names())
def test_export_with_a_batch_of_any_size(name: str) -> None:
    net = build(name)
    batch = batch_of_three(net)
    program = torch.export.export(net, (batch,), dynamic_shapes=({0: Dim("batch")},))
    more = torch.cat([batch, batch.flip(0)])[:5]
    with torch.inference_mode():
        torch.testing.assert_close(program.module()(more), net(more))
