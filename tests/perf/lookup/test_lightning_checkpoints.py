"""Checkpoints of people's own Lightning classes: loaded whole, or refused with what is in the way
and what to write.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hotlap.perf.lookup import workloads
from hotlap.perf.lookup.workloads import Reference
from hotlap.perf.terms.reasons import Refusal

USER = """
import lightning as L
import torch
from torch import nn

def net(width):
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 2))

class Plain(L.LightningModule):
    def __init__(self, width=4):
        super().__init__()
        self.save_hyperparameters()
        self.net, self.example_input_array = net(width), torch.randn(3, 6)
    def forward(self, x):
        return self.net(x)

class Keyword(Plain):
    def __init__(self, width=4):
        super().__init__(width)
        self.example_input_array = {"x": torch.randn(3, 6)}

class Renamed(L.LightningModule):
    def __init__(self, width=4):
        super().__init__()
        self.save_hyperparameters()
        self.body, self.example_input_array = net(width), torch.randn(3, 6)
    def forward(self, x):
        return self.body(x)

class WithLoss(Plain):
    def __init__(self, width=4, loss=None):
        super(Plain, self).__init__()
        self.save_hyperparameters()
        self.net, self.example_input_array = net(width), torch.randn(3, 6)

class Given(L.LightningModule):
    def __init__(self, net):
        super().__init__()
        self.save_hyperparameters(ignore=["net"])
        self.net, self.example_input_array = net, torch.randn(3, 6)
    def forward(self, x):
        return self.net(x)

def given():
    return Given(net(4))
"""


@pytest.fixture(autouse=True)
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "lap_lightning.py").write_text(USER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield tmp_path
    sys.modules.pop("lap_lightning", None)


def saved(name: str, **hyperparameters: object) -> dict[str, torch.Tensor]:
    """Saves a checkpoint as a trainer does, and returns its weights."""
    import importlib

    import lightning as L

    source = importlib.import_module("lap_lightning")
    module = source.given() if name == "Given" else getattr(source, name)(**hyperparameters)
    for value in module.parameters():
        value.data.fill_(0.5)
    trainer = L.Trainer(
        logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu"
    )
    trainer.strategy.connect(module)
    trainer.save_checkpoint("best.ckpt")
    return module.state_dict()


def detail(attribute: str) -> str:
    with pytest.raises(Refusal) as refused:
        workloads.load(Reference(f"lap_lightning:{attribute}", "best.ckpt"))
    assert refused.value.reason.code == "invalid_input"
    return refused.value.reason.detail


@pytest.mark.parametrize("name", ["Plain", "Keyword"])
def test_the_weights_and_hyperparameters_are_the_checkpoints(name: str) -> None:
    saved(name, width=9)
    workload = workloads.load(Reference(f"lap_lightning:{name}", "best.ckpt"))
    assert workload.names == ("x",)
    assert workload.weights.startswith("checkpoint best.ckpt sha256:")
    assert {len(value) for value in workload.module.parameters()} == {9, 2}
    assert all((value == 0.5).all() for value in workload.module.parameters())


def test_what_torch_compile_put_into_the_names_is_taken_off_and_told() -> None:
    state = saved("Plain")
    stored = torch.load("best.ckpt", weights_only=True)
    stored["state_dict"] = {name.replace("net.", "net._orig_mod."): value for name, value in state.items()}
    torch.save(stored, "best.ckpt")
    workload = workloads.load(Reference("lap_lightning:Plain", "best.ckpt"))
    assert all((value == 0.5).all() for value in workload.module.parameters())
    assert workload.weights.endswith("(names without _orig_mod.)")


def test_a_class_after_a_refactoring_is_refused_with_the_names_on_both_sides() -> None:
    saved("Plain")
    words = detail("Renamed")
    assert "it lacks body.0.bias, body.0.weight, body.2.bias and 1 more" in words
    assert "has net.0.bias, net.0.weight, net.2.bias and 1 more besides" in words


@pytest.mark.filterwarnings("ignore:Attribute 'loss' is an instance of `nn.Module`")
def test_a_class_that_is_not_unpickled_is_named_with_how_to_allow_it() -> None:
    saved("WithLoss", loss=torch.nn.L1Loss())
    words = detail("WithLoss")
    assert "best.ckpt holds a torch.nn.modules.loss.L1Loss, which is not loaded from files" in words
    assert "torch.serialization.add_safe_globals([torch.nn.modules.loss.L1Loss])" in words


def test_an_argument_that_no_checkpoint_holds_is_asked_for_by_the_function_to_write() -> None:
    saved("Given")
    words = detail("Given")
    assert "cannot be made from the hyperparameters in best.ckpt" in words and "'net'" in words
    assert "def make(): return Given(...), and give lap_lightning:make with --checkpoint" in words
    workload = workloads.load(Reference("lap_lightning:given", "best.ckpt"))
    assert all((value == 0.5).all() for value in workload.module.parameters())
