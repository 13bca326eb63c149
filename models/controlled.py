"""How the controls of a network score, on its own data by its own function, and whether it beats
them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

from . import controls
from .trainable import Trainable


def control_names(network: str = "") -> list[str]:
    """Returns the names of a network's controls, sorted; without a network those of all."""
    files = (info.name for info in pkgutil.iter_modules(controls.__path__))
    names = sorted(name for name in files if not name.startswith("_"))
    return [
        name
        for name in names
        if not network or network in importlib.import_module(f"{controls.__name__}.{name}").NETWORKS
    ]


def control_scores(net: type[Trainable], split: str = "validation") -> dict[str, dict[str, float]]:
    """Fits each control of a network to the training split and scores it on another.

    Returns control -> metric -> value.
    """
    data = net.data()
    data.setup()
    inputs, targets = data.splits[split]
    scores = {}
    for name in control_names(net.label()):
        control = importlib.import_module(f"{controls.__name__}.{name}")
        scores[name] = net.score(control.outputs(data.splits["train"], inputs), targets)
    return scores


def beats(net: type[Trainable], score: float, others: Mapping[str, float]) -> bool:
    """Whether a network's score in its deciding metric is better than that of each control."""
    if net.better == "higher":
        return all(score > other for other in others.values())
    return all(score < other for other in others.values())
