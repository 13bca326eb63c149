"""Makes the Workload that the harness runs from a network and its newest checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..perf.terms.case import Evaluation, Workload
from . import checkpoint, runs
from .catalog import nearest
from .train import train
from .trainable import Trainable

# Samples of the training split from which int8 takes its ranges.
CALIBRATION = 256


def load(net: type[Trainable], presets: Mapping[str, Mapping[str, Any]], preset: str = "") -> Workload:
    """Returns the workload of a network of nets/.

    The default preset has the weights of the newest finished training, else seeded ones; its input
    is one real sample of the validation split, which is also what the evaluation takes. Other
    presets have seeded weights, seeded inputs and no evaluation. Raises ValueError for an unknown
    preset or an unreadable checkpoint.
    """
    if preset not in presets:
        raise ValueError(
            f"{net.label()} has no preset {preset!r}; {nearest(preset, [name for name in presets if name])}"
        )
    if preset:
        module = seeded(net, presets[preset])
        inputs = module.example()
        name, weights = f"{net.label()}:{preset}", "random, seed 0"
        return Workload(name, module, (inputs,), net.items_per_sample(inputs), net.item, weights=weights)
    data = net.data()
    data.setup()
    inputs, targets = data.splits["validation"]
    module, weights = trained(net, presets[""], data.data_hash)
    return Workload(
        name=net.label(),
        module=module,
        inputs=(inputs[:1].clone(),),
        items=net.items_per_sample(inputs),
        item=net.item,
        evaluate=evaluation(net, inputs, targets),
        calibration=(data.splits["train"][0][:CALIBRATION].clone(),),
        weights=weights,
    )


def ready(net: type[Trainable], report: Callable[[str], None]) -> None:
    """Trains with default settings unless a finished training is there."""
    if runs.newest(net.label(), finished=True) is None:
        train(net.label(), report=report)


def seeded(net: type[Trainable], arguments: Mapping[str, Any]) -> Trainable:
    """Returns the network with random weights, the same every time.

    The caller's random state stays as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return net(**arguments).eval()


def trained(net: type[Trainable], arguments: Mapping[str, Any], data_hash: str) -> tuple[Trainable, str]:
    """The newest finished training's module, else a seeded one, and words that say which it is."""
    folder = runs.newest(net.label(), finished=True)
    if folder is None:
        return seeded(net, arguments), f"random, seed 0 (no checkpoint; hotlap train {net.label()} makes one)"
    path = folder / runs.CHECKPOINT
    module, content = checkpoint.restore(net, path)
    precision = runs.Settings.read(folder).precision
    mixed = "" if precision == "fp32" else f" in mixed {precision}"
    epochs = content["hotlap"].get("epochs_trained", content["epoch"] + 1)
    words = f"trained{mixed}, epoch {epochs}, checkpoint sha256:{runs.digest(path)[:8]}"
    if content["hotlap"]["data_hash"] != data_hash:
        words += ", on other data than this installation's"
    return module, words


def evaluation(net: type[Trainable], inputs: Tensor, targets: Tensor) -> Evaluation:
    """How outputs for all of these inputs are scored, and how much worse they may be."""

    def score(outputs: tuple[np.ndarray, ...]) -> dict[str, float]:
        return net.score(torch.as_tensor(outputs[0], dtype=torch.float32), targets)

    return Evaluation((inputs,), score, net.metric, net.better, net.budget, net.int8_budget)
