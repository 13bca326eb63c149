"""ADMET-AI's graph network, which tells properties of a molecule, from the checkpoints that
admet-ai ships: an ensemble of five, 31 yes-or-no properties.

Truth: the predictions that its authors publish for approved drugs, in the same package. So the
metric says whether a route decides as the published model, not whether that is right.

A checkpoint holds classes of chemprop besides its weights. torch.load opens it with weights_only
and the classes of ALLOWED by name; nothing else is unpickled.

chemprop joins molecules of any size to one graph. Here each is a row of its own, padded to ATOMS
and BONDS, so that rows are a batch: the same sums over the same layers, as the published
predictions show. The chemistry before it (SMILES to features, by RDKit) is not in the network.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import hotlap

from . import packages

# Places for a molecule's atoms and bonds (each bond twice, a direction each); the last atom and
# bond are padding, where what is padded points.
ATOMS, BONDS = 41, 89
DRUGS = 256
# Share of the decisions that may differ from the published.
BUDGET = 0.01


class PaddedMolecules(nn.Module):
    """chemprop's BondMessagePassing of depth 3, NormAggregation and its two layers after it.

    After Heid and others, Chemprop, https://doi.org/10.1021/acs.jcim.3c01250.
    """

    def __init__(self, values: dict[str, Tensor], norm: float) -> None:
        super().__init__()
        self.norm = norm
        names = ("message_passing.W_i", "message_passing.W_h", "message_passing.W_o")
        self.bond, self.message, self.atom = (linear(values, name) for name in names)
        self.head = nn.Sequential(
            linear(values, "predictor.ffn.0.0"), nn.ReLU(), linear(values, "predictor.ffn.1.2")
        )

    def forward(
        self, atoms: Tensor, bonds: Tensor, source: Tensor, target: Tensor, reverse: Tensor, present: Tensor
    ) -> Tensor:  # (B, A, 72), (B, M, 14), (B, M), (B, M), (B, M), (B, A) -> (B, 31)
        first = self.bond(torch.cat((taken(atoms, source), bonds), 2))  # (B, M, H)
        hidden = torch.relu(first)
        for _ in range(2):
            message = taken(self.arriving(hidden, target, atoms), source) - taken(hidden, reverse)
            hidden = torch.relu(first + self.message(message))
        arrived = self.arriving(hidden, target, atoms)
        features = torch.relu(self.atom(torch.cat((atoms, arrived), 2)))  # (B, A, H)
        return torch.sigmoid(self.head((features * present[:, :, None]).sum(1) / self.norm))

    def arriving(self, hidden: Tensor, target: Tensor, atoms: Tensor) -> Tensor:
        """Returns the sum of the bonds that end at each atom, (B, A, H)."""
        zeros = hidden.new_zeros(hidden.shape[0], atoms.shape[1], hidden.shape[2])
        return zeros.scatter_add(1, target[:, :, None].expand_as(hidden), hidden)


class Ensemble(nn.Module):
    """The mean of several networks' answers."""

    def __init__(self, networks: list[PaddedMolecules]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(
        self, atoms: Tensor, bonds: Tensor, source: Tensor, target: Tensor, reverse: Tensor, present: Tensor
    ) -> Tensor:
        graph = (atoms, bonds, source, target, reverse, present)
        return torch.stack([network(*graph) for network in self.networks]).mean(0)


def taken(values: Tensor, places: Tensor) -> Tensor:  # (B, N, F), (B, M) -> (B, M, F)
    return values.gather(1, places[:, :, None].expand(-1, -1, values.shape[2]))


def linear(values: dict[str, Tensor], name: str) -> nn.Linear:
    """Returns the layer of that name in a state_dict."""
    weight, bias = values[f"{name}.weight"], values.get(f"{name}.bias")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return layer


def allowed() -> list[Any]:
    """Returns the classes and functions that a checkpoint names, and that may be made of it."""
    from chemprop.nn.agg import NormAggregation
    from chemprop.nn.message_passing.base import BondMessagePassing
    from chemprop.nn.metrics import BinaryAUPRC, BinaryAUROC
    from chemprop.nn.predictors import BinaryClassificationFFN
    from chemprop.nn.transforms import GraphTransform
    from torchmetrics.metric import jit_distributed_available
    from torchmetrics.utilities.data import dim_zero_cat

    return [
        # torch fills no dict of another class: Lightning's is read as a plain one.
        (dict, "lightning.fabric.utilities.data.AttributeDict"),
        BinaryAUPRC,
        BinaryAUROC,
        BinaryClassificationFFN,
        BondMessagePassing,
        GraphTransform,
        NormAggregation,
        dim_zero_cat,
        jit_distributed_available,
        nn.Identity,
        nn.ReLU,
    ]


def network(file: Path) -> tuple[PaddedMolecules, list[str]]:
    """Returns a checkpoint's network and what its answers are called."""
    with torch.serialization.safe_globals(allowed()):
        stored = torch.load(file, map_location="cpu", weights_only=True)
    settings = stored["hyper_parameters"]
    assert settings["message_passing"]["depth"] == 3 and not settings["batch_norm"], settings
    return PaddedMolecules(stored["state_dict"], settings["agg"]["norm"]), list(stored["output_columns"])


def drugs(columns: list[str]) -> tuple[list[str], np.ndarray]:
    """Returns SMILES of approved drugs and what is published of them, (drugs, columns)."""
    path = packages.folder("admet_ai") / "resources" / "data" / "drugbank_approved.csv"
    with path.open(newline="") as text:
        rows = list(csv.DictReader(text))
    return [row["smiles"] for row in rows], np.array([[float(row[name]) for name in columns] for row in rows])


def graphs(smiles: list[str], count: int) -> tuple[tuple[Tensor, ...], list[int]]:
    """Returns the first molecules that fit, as the network takes them, and which they are."""
    from chemprop.featurizers import SimpleMoleculeMolGraphFeaturizer
    from rdkit import Chem

    featurizer = SimpleMoleculeMolGraphFeaturizer()
    rows, places = [], []
    for place, text in enumerate(smiles):
        graph = featurizer(Chem.MolFromSmiles(text))
        if 0 < graph.V.shape[0] < ATOMS and graph.E.shape[0] < BONDS:
            rows.append(padded(graph))
            places.append(place)
        if len(rows) == count:
            break
    return tuple(torch.stack(parts) for parts in zip(*rows, strict=True)), places


def padded(graph: Any) -> tuple[Tensor, ...]:
    """Returns one molecule's atoms, bonds, where bonds begin and end, the bond in the other
    direction, and which atoms are there.
    """
    (count, width), (bonds, features) = graph.V.shape, graph.E.shape
    atom_rows, bond_rows = torch.zeros(ATOMS, width), torch.zeros(BONDS, features)
    atom_rows[:count], bond_rows[:bonds] = torch.tensor(graph.V), torch.tensor(graph.E)
    ends = torch.full((2, BONDS), ATOMS - 1)
    ends[:, :bonds] = torch.tensor(graph.edge_index)
    reverse = torch.full((BONDS,), BONDS - 1)
    reverse[:bonds] = torch.tensor(graph.rev_edge_index)
    return atom_rows, bond_rows, ends[0], ends[1], reverse, (torch.arange(ATOMS) < count).float()


def agreement(answers: np.ndarray, published: np.ndarray) -> dict[str, float]:
    """The share of decisions that are the published ones, and how far the values are off."""
    return {
        "decisions as published": float(((answers > 0.5) == (published > 0.5)).mean()),
        "mean difference": float(np.abs(answers - published).mean()),
    }


def admet() -> hotlap.Workload:
    """The ensemble for yes-or-no properties."""
    path = packages.folder("admet_ai") / "resources" / "models" / "admet_classification"
    networks, names = zip(*(network(file) for file in sorted(path.glob("*.pt"))), strict=True)
    smiles, published = drugs(names[0])
    inputs, places = graphs(smiles, DRUGS)
    later = places[-1] + 1
    calibration, _ = graphs(smiles[later:], DRUGS // 2)
    evaluation = hotlap.Evaluation(
        inputs=inputs,
        score=lambda outputs: agreement(outputs[0], published[places]),
        metric="decisions as published",
        better="higher",
        budget=BUDGET,
    )
    return hotlap.Workload(
        "admet",
        Ensemble(list(networks)).eval(),
        tuple(value[:1] for value in inputs),
        item="molecule",
        evaluate=evaluation,
        calibration=calibration,
        weights=packages.weights("admet-ai", f"{len(networks)} checkpoints of admet_classification"),
    )
