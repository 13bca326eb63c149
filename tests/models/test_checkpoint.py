"""Checkpoints are not trusted: code is refused, damage is found, the class must fit."""

from __future__ import annotations

import pickle
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from torch import Tensor, nn

from hotlap.models.checkpoint import read, restore
from hotlap.models.nets.mlp import MLP
from hotlap.models.nets.resnet import ResNet18
from hotlap.models.train import train


class Scale(L.LightningModule):
    """A user's module: saved hyperparameters, example inputs."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.example_input_array = torch.ones(2, 3)
        self.shift = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:  # (B, 3) -> (B, 3)
        return x * self.hparams["factor"] + self.shift


class Forgetful(L.LightningModule):
    """Neither saved hyperparameters nor example inputs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Marker:
    """Leaves a file behind when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def save(module: L.LightningModule, path: Path) -> Path:
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    return path


@pytest.fixture
def trained() -> Path:
    return train("mlp", epochs=1, report=lambda line: None).checkpoint


@pytest.mark.parametrize("as_zip", [True, False])
def test_code_in_a_pickle_is_refused_and_does_not_run(as_zip: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "evil.ckpt"
    content = {"state_dict": {}, "hyper_parameters": Marker(mark)}
    if as_zip:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"evil\.ckpt"):
        restore(MLP, path)
    assert not mark.exists()
    if as_zip:
        torch.load(path, weights_only=False)
        assert mark.exists()  # so the pickle would have run


def test_truncated_and_altered_files_are_called_damaged(trained: Path, tmp_path: Path) -> None:
    whole = trained.read_bytes()
    weight = read(trained)["state_dict"]["layers.0.weight"].numpy().tobytes()
    middle = whole.index(weight) + 100
    damages = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "one bit of a weight": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "text": b"no checkpoint at all",
    }
    for kind, content in damages.items():
        path = tmp_path / "damaged.ckpt"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged\.ckpt is damaged .*train again") as error:
            restore(MLP, path)
        assert "\n" not in str(error.value), kind


def test_a_checkpoint_of_another_class_is_refused(trained: Path) -> None:
    with pytest.raises(
        ValueError, match=r"is of hotlap\.models\.nets\.mlp:MLP, not of hotlap\.models\.nets\.resnet:ResNet18"
    ):
        restore(ResNet18, trained)
    with pytest.raises(ValueError, match=r"is of hotlap\.models\.nets\.mlp:MLP, not of"):
        restore(Scale, trained)


def test_other_refusals_are_one_line(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.ckpt")
    torch.save({"state_dict": {"other": torch.zeros(1)}}, tmp_path / "weights.ckpt")
    torch.save(
        {"state_dict": {"other": torch.zeros(1)}, "pytorch-lightning_version": "2.6.0"},
        tmp_path / "other.ckpt",
    )
    forgetful = save(Forgetful(4), tmp_path / "forgetful.ckpt")
    for cls, path, message in (
        (Scale, tmp_path / "absent.ckpt", "there is no checkpoint"),
        (Scale, tmp_path / "list.ckpt", "no Lightning checkpoint"),
        (Scale, tmp_path / "weights.ckpt", "no Lightning checkpoint"),
        (Scale, tmp_path / "other.ckpt", "do not fit"),
        (MLP, tmp_path / "other.ckpt", "not written by hotlap train"),
        (Forgetful, forgetful, "save_hyperparameters"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            restore(cls, path)
        assert "\n" not in str(error.value)


def test_restore_gives_back_the_weights_in_eval_mode(trained: Path) -> None:
    module, content = restore(MLP, trained)
    assert not module.training and content["epoch"] == 0
    assert all(torch.equal(value, content["state_dict"][key]) for key, value in module.state_dict().items())
