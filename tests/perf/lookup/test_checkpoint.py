"""Weights of a checkpoint in what a function makes: all of them, or a refusal that names them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from hotlap.perf.lookup import checkpoint
from hotlap.perf.terms.reasons import Refusal


class Around(nn.Module):
    """A network within a module, beside a loss that has weights."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.loss = nn.Linear(300, 2), nn.BCEWithLogitsLoss(pos_weight=torch.ones(2))


def trained(inputs: int = 3) -> nn.Linear:
    layer = nn.Linear(inputs, 2)
    nn.init.constant_(layer.weight, 7.0)
    return layer


def stored(path: Path, state: dict[str, torch.Tensor]) -> Path:
    torch.save({"state_dict": state, "epoch": 3}, path)
    return path


def refused(module: nn.Module, path: Path) -> str:
    with pytest.raises(Refusal) as refusal:
        checkpoint.fill(module, path)
    assert refusal.value.reason.code == "invalid_input"
    return refusal.value.reason.detail


@pytest.mark.parametrize(
    ("prefix", "words"),
    [("", ""), ("_orig_mod.", " (names without _orig_mod.)"), ("net.", " (its net)")],
)
def test_weights_are_the_checkpoints_and_the_words_say_how(tmp_path: Path, prefix: str, words: str) -> None:
    state = {prefix + name: value for name, value in trained().state_dict().items()}
    module = nn.Linear(3, 2)
    path = stored(tmp_path / "best.ckpt", state)
    assert checkpoint.fill(module, path) == checkpoint.described(path) + words
    assert (module.weight == 7).all()


def test_a_networks_weights_are_taken_out_of_a_lightning_modules(tmp_path: Path) -> None:
    outer = Around()
    outer.net = trained(300)
    compiled = {name.replace("net.", "net._orig_mod."): value for name, value in outer.state_dict().items()}
    module = nn.Linear(300, 2)
    words = checkpoint.fill(module, stored(tmp_path / "x.ckpt", compiled))
    assert words.endswith(" (names without _orig_mod.) (its net without loss.pos_weight)")
    assert (module.weight == 7).all()


def test_a_networks_weights_go_into_a_module_around_it(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 2))
    checkpoint.fill(module, stored(tmp_path / "x.ckpt", trained().state_dict()))
    assert (module[0].weight == 7).all()


def test_a_file_that_is_a_state_dict_is_taken(tmp_path: Path) -> None:
    torch.save(trained().state_dict(), tmp_path / "weights.pt")
    module = nn.Linear(3, 2)
    checkpoint.fill(module, tmp_path / "weights.pt")
    assert (module.weight == 7).all()


def test_another_models_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    path = stored(tmp_path / "x.ckpt", nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)).state_dict())
    detail = refused(nn.Linear(3, 2), path)
    assert "it lacks bias, weight and has 0.bias, 0.weight, 1.bias and 1 more besides" in detail


def test_a_checkpoint_of_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    detail = refused(nn.Linear(4, 2), stored(tmp_path / "x.ckpt", trained().state_dict()))
    assert "size mismatch for weight" in detail


@pytest.mark.parametrize("content", [b"", b"weights", b"\x80\x04cos\nsystem\n."])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    assert "cannot be read with weights_only" in refused(nn.Linear(3, 2), tmp_path / "x.ckpt")


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "x.ckpt")
    assert "holds no state_dict" in refused(nn.Linear(3, 2), tmp_path / "x.ckpt")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "harm",)  # type: ignore[return-value]

    torch.save({"state_dict": Harm()}, tmp_path / "x.ckpt")
    refused(nn.Linear(3, 2), tmp_path / "x.ckpt")
    assert not (tmp_path / "harm").exists()
