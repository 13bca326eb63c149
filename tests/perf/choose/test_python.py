"""hotlap.optimize and the callback: a choice from Python, of a module in memory and after a fit."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as L
import numpy as np
import pytest
import torch

import hotlap
from hotlap.perf.commands.optimizing import importable
from hotlap.perf.lookup import saved_program, workloads
from hotlap.perf.terms.reasons import Misuse, Refusal

SPLIT = """
import numpy as np
import torch

import hotlap


def evaluation():
    torch.manual_seed(1)
    return hotlap.Evaluation(
        (torch.randn(64, 16),), lambda outputs: {"mean": float(np.abs(outputs[0]).mean())},
        "mean", "lower", 0.1,
    )
"""
MODULE = """
import lightning.pytorch as L
import torch


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(16, 4)
        self.example_input_array = torch.randn(2, 16)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, index):
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)
"""


class Pair(torch.nn.Module):
    """Two inputs by keyword, a dict out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(16, 4)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": self.layer(left) + self.layer(right)}


class Decides(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if float(x.sum()) > 0 else x - 1


def test_a_module_is_saved_with_its_batch_free(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Pair().train()
    inputs = {"left": torch.randn(1, 16), "right": torch.randn(1, 16)}
    saved_program.save(net, inputs, tmp_path / "pair.pt2")
    assert net.training
    loaded = workloads.load(workloads.named(str(tmp_path / "pair.pt2")))
    assert loaded.names == ("left", "right") and loaded.dynamic
    rows = torch.randn(5, 16), torch.randn(5, 16)
    assert torch.allclose(loaded.module(*rows)["sum"], net(*rows)["sum"], atol=1e-6)


def test_what_cannot_be_saved_is_said(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"Decides cannot be exported by torch.export.*package.module:function"):
        saved_program.save(Decides(), torch.randn(2, 3), tmp_path / "d.pt2")
    with pytest.raises(Refusal, match="Pair has no example inputs"):
        saved_program.save(Pair(), None, tmp_path / "p.pt2")


def test_an_evaluation_must_be_importable() -> None:
    assert importable("my:evaluation") == "my:evaluation"
    assert importable(test_an_evaluation_must_be_importable).endswith(
        ":test_an_evaluation_must_be_importable"
    )
    with pytest.raises(Misuse, match="processes of their own must import it"):
        importable(lambda: None)


def test_a_file_takes_its_evaluation_from_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "split_of_files.py").write_text(SPLIT)
    monkeypatch.syspath_prepend(str(tmp_path))
    saved_program.save(torch.nn.Linear(16, 4), torch.randn(2, 16), tmp_path / "net.pt2")
    path, name = str(tmp_path / "net.pt2"), "split_of_files:evaluation"
    loaded = workloads.load(workloads.named(path, arguments={"evaluate": name}))
    assert loaded.evaluate is not None and loaded.evaluate.metric == "mean"
    for wrong, words in (
        ("split_of_files", "expected package.module:function"),
        ("os:getcwd", "returned a str"),
    ):
        with pytest.raises(Refusal, match=words):
            workloads.load(workloads.named(path, arguments={"evaluate": wrong}))


@pytest.mark.slow
def test_a_choice_from_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "split_of_files.py").write_text(SPLIT)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4)).eval()
    x = torch.randn(3, 16)
    model = hotlap.optimize(
        net, x, evaluate="split_of_files:evaluation", subject_to="drop<=10%", budget="60s", out="out"
    )
    (output,) = model(x[:1].numpy())
    assert np.allclose(output, net(x[:1]).detach().numpy(), atol=0.05)
    assert (tmp_path / "out" / "run.sh").is_file()
    assert "times as fast as" in capsys.readouterr().out


def fit(module: L.LightningModule, folder: Path, callback: L.Callback) -> None:
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(16, 16)), batch_size=8)
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=folder,
        callbacks=[callback], enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_fit_leaves_the_folder_beside_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fitted_net.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    import fitted_net

    callback = hotlap.OptimizeAfterFit(budget="40s")
    fit(fitted_net.Net(), tmp_path, callback)
    assert callback.folder is not None and callback.folder.name.endswith(".optimized")
    assert list(callback.folder.parent.glob("*.ckpt"))
    (output,) = hotlap.open_artefact(callback.folder)(np.ones((1, 16), np.float32))
    assert output.shape == (1, 4)


class Local(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)


def test_a_fit_that_could_not_be_optimised_says_so_before_it_begins() -> None:
    callback = hotlap.OptimizeAfterFit()
    with pytest.raises(ValueError, match="has no example_input_array"):
        callback.setup(L.Trainer(accelerator="cpu", logger=False), Local(), "fit")
    with pytest.raises(Misuse, match="unknown quantity"):
        hotlap.OptimizeAfterFit(subject_to="p98<=1ms")
