"""load() and ready(): the contract between a network and the harness."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hotlap.models import runs
from hotlap.models.catalog import names, network
from hotlap.models.nets import mlp
from hotlap.models.train import train
from hotlap.models.training import configuration
from hotlap.perf.terms.case import Workload


def load(name: str, preset: str = "") -> Workload:
    return importlib.import_module(f"hotlap.models.nets.{name}").load(preset)


def outputs(workload: Workload) -> np.ndarray:
    assert workload.evaluate is not None
    with torch.inference_mode():
        return workload.module(*workload.evaluate.inputs).numpy()


@pytest.mark.parametrize("name", names())
def test_without_a_checkpoint_weights_are_seeded(name: str) -> None:
    torch.manual_seed(11)
    workload = load(name)
    assert workload.name == name
    assert workload.weights == f"random, seed 0 (no checkpoint; hotlap train {name} makes one)"
    assert not workload.module.training and {p.dtype for p in workload.module.parameters()} == {torch.float32}
    assert len(workload.inputs[0]) == 1
    items = {"mlp": ("row", 1), "gpt": ("token", 128), "tcn": ("window", 1), "unet": ("tile", 1)}.get(
        name, ("image", 1)
    )
    assert (workload.item, workload.items) == items
    torch.manual_seed(12)
    again = load(name).module.state_dict()
    assert all(torch.equal(value, again[key]) for key, value in workload.module.state_dict().items())


@pytest.mark.parametrize("name", names())
def test_example_input_is_the_first_sample_of_the_validation_split(name: str) -> None:
    workload = load(name)
    data = network(name).data()
    data.setup()
    assert workload.evaluate is not None
    assert torch.equal(workload.evaluate.inputs[0], data.splits["validation"][0])
    assert torch.equal(workload.inputs[0], data.splits["validation"][0][:1])


def test_perfect_and_wrong_classes_are_scored_as_such() -> None:
    evaluate = load("resnet").evaluate
    data = network("resnet").data()
    data.setup()
    labels = data.splits["validation"][1].numpy()
    assert evaluate is not None
    assert (evaluate.metric, evaluate.better, evaluate.budget) == ("accuracy", "higher", 0.005)
    perfect = evaluate.score((np.eye(10)[labels],))
    assert [perfect[name] for name in ("accuracy", "f1_macro", "f1_worst")] == pytest.approx([1.0, 1.0, 1.0])
    one_wrong = np.eye(10)[labels]
    one_wrong[0] = np.roll(one_wrong[0], 1)
    assert evaluate.score((one_wrong,))["accuracy"] == pytest.approx(1 - 1 / len(labels))


def test_uniform_guesses_cost_eight_bits_per_byte() -> None:
    evaluate = load("gpt").evaluate
    assert evaluate is not None and (evaluate.metric, evaluate.better) == ("perplexity", "lower")
    score = evaluate.score((np.zeros((*evaluate.inputs[0].shape, 256), dtype=np.float16),))
    assert score["perplexity"] == pytest.approx(256) and score["bits_per_byte"] == pytest.approx(8)


def test_with_a_checkpoint_the_newest_finished_training_is_loaded() -> None:
    train("mlp", epochs=1, seed=1, report=lambda line: None)
    newer = train("mlp", epochs=2, seed=2, report=lambda line: None)
    runs.create(runs.Settings("mlp", seed=3, epochs=2))  # newer still, but unfinished
    workload = load("mlp")
    assert workload.weights.startswith("trained, epoch 2, checkpoint sha256:")
    assert workload.evaluate is not None
    scores = workload.evaluate.score((outputs(workload),))
    assert scores == pytest.approx(newer.validation)


def test_larger_presets_are_seeded_and_have_no_evaluation() -> None:
    train("mlp", epochs=1, report=lambda line: None)
    workload = load("mlp", "wide")
    assert (workload.name, workload.weights, workload.evaluate) == ("mlp:wide", "random, seed 0", None)
    assert torch.equal(workload.inputs[0], load("mlp", "wide").inputs[0])
    gpt = load("gpt", "124m")
    assert (gpt.items, gpt.inputs[0].shape, gpt.inputs[0].dtype) == (1024, (1, 1024), torch.int64)
    assert int(gpt.inputs[0].max()) >= 256


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no preset 'bse'; did you mean base"):
        load("vit", "bse")


def test_ready_trains_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = tmp_path / "mlp.yaml"
    short.write_text((configuration.CONFIGS / "mlp.yaml").read_text().replace("epochs: 20", "epochs: 2"))
    monkeypatch.setattr(configuration, "CONFIGS", tmp_path)
    lines: list[str] = []
    mlp.ready(lines.append)
    mlp.ready(lines.append)
    assert [line.partition(",")[0] for line in lines] == ["mlp: epoch 1 of 2", "mlp: epoch 2 of 2"]


def test_imports_stay_light(tmp_path: Path) -> None:
    """The command line without torch; a network without data, scikit-learn or threads."""
    program = """
import sys, threading, json
import hotlap.models.cli, hotlap.models.runs_cli
early = "torch" in sys.modules or "matplotlib" in sys.modules
import hotlap.models.nets.gpt, hotlap.models.nets.resnet
print(json.dumps([early, "sklearn" in sys.modules, threading.active_count()]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert json.loads(done.stdout) == [False, False, 1]
    assert not list(tmp_path.iterdir())
