"""Where a backend's answer goes wrong: the first node of its file that computes something else than
torch does.

The file runs with every value an output, and torch's graph (torch_graph.py) has values of the same
names. For each of them the piece of torch's graph behind it runs in fp64 on the values that the
backend itself had there: what the backend's value is off by then is this node's own error, whatever
came before. Its yardstick is the rule of the oracle (check.py) with the same piece in the case's
own precision as eager. A node is at fault if it breaks the rule LEAP times over, and if its error
alone, put into the fp64 run, takes the module's outputs out of what the oracle allows.

Where every value is an output nothing is fused. If the answer is right then, the runtime's
optimiser is at fault: values are made outputs one at a time, and the smallest part that is wrong by
itself is looked for.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..oracle import check
from ..terms.case import Workload
from ..terms.contract import Arrays, Artefact, Backend
from ..terms.reasons import room
from . import located
from .deviation import Error, RefusedBatch, compare, excess, off, size
from .located import Fault, SubGraph
from .model_file import KINDS, QUANTISING, FileNode, ModelFile, values
from .torch_graph import TorchGraph

if TYPE_CHECKING:
    from torch.fx import Node

# How often a node breaks the rule before it counts: the rule is meant for whole models.
LEAP = 4.0
# Where a task metric refused and not the rule, a node's share of the outputs' error.
SHARE = 0.5

# Values that a part may reach back from the one that is wrong.
MOST_BACK = 32

# Loads the copy of a file in a folder; the function runs it and returns its outputs in order.
Load = Callable[[Path], Callable[[Arrays], Arrays]]


class Piece(NamedTuple):
    """What lies behind one value of a file.

    node: torch's. bound: what it is computed from, as torch's node -> name of the value. parts: the
    file's nodes in between, its own last.
    """

    name: str
    node: Node
    bound: dict[Node, str]
    parts: tuple[FileNode, ...]


def report(
    workload: Workload,
    artefact: Artefact,
    backend: Backend,
    refused: RefusedBatch,
    folder: Path,
    shown: str,
) -> str:
    """Returns the line for the result of a case whose answer was refused. Where a node is at fault,
    its part of the file is saved in `folder`, which the line calls `shown`. Raises Refusal.
    """
    kind = next((kind for kind in KINDS if (artefact.folder / kind.FILE).is_file()), None)
    if kind is None or not getattr(backend, "LOCATES", False):
        return (
            "not located: --locate looks into ONNX files and OpenVINO's IR, and"
            f" {artefact.case.backend} loads none"
        )
    file: ModelFile = kind(artefact.folder)

    def load(place: Path) -> Callable[[Arrays], Arrays]:
        bound = os.sched_getaffinity(0)
        step = backend.load(replace(artefact, folder=place))
        os.sched_setaffinity(0, bound)  # a backend may bind the thread that calls, which torch needs too
        return lambda arrays: step.fetch(step.call(step.place(arrays)))

    with room():
        folder.mkdir(parents=True, exist_ok=True)
        outcome = locate(TorchGraph(workload), file, load, refused, folder)
        if isinstance(outcome, str):
            return outcome
        return outcome.line(shown, located.save(outcome, file, folder, artefact.case.precision))


def locate(
    graph: TorchGraph, file: ModelFile, load: Load, refused: RefusedBatch, scratch: Path
) -> Fault | str:
    """Returns the first node at fault, or in words that there is none. Raises Refusal.

    scratch: a folder for copies of the file, which do not stay.
    """
    pieces = behind(graph, file.nodes)
    search = Search(graph, file, load, refused, scratch, pieces)
    return search.node() or search.fused() or search.none()


def behind(graph: TorchGraph, nodes: Sequence[FileNode]) -> list[Piece]:
    """Returns the pieces of a file, in the file's order, for every value that torch's graph has.

    A value that was only passed on stands for the same node of torch's.
    """
    makers = {name: node for node in nodes for name in node.outputs}
    computed = set(values(nodes))
    meant = {name: node for name, node in graph.named.items() if name in computed or node in graph.inputs}
    for node in nodes:
        origin = meant.get(node.inputs[0]) if node.passes and node.inputs else None
        if origin is not None and origin.meta["val"].dtype.is_floating_point:
            meant.setdefault(node.outputs[0], origin)
    quantised = {name for node in nodes if node.kind == "QuantizeLinear" for name in node.outputs}
    order = {node: place for place, node in enumerate(nodes)}
    pieces = []
    for name in values(nodes):
        if name not in meant or name in quantised:
            continue
        bound: dict[Node, str] = {}
        parts, stack = {makers[name]}, list(makers[name].inputs)
        while stack:
            source = stack.pop()
            if source in meant and source not in quantised:
                bound[meant[source]] = source
            elif source in makers and makers[source] not in parts:
                parts.add(makers[source])
                stack += makers[source].inputs
        pieces.append(Piece(name, meant[name], bound, tuple(sorted(parts, key=order.__getitem__))))
    return pieces


class Search:
    """One search: what the file computes, and what it should."""

    def __init__(
        self,
        graph: TorchGraph,
        file: ModelFile,
        load: Load,
        refused: RefusedBatch,
        scratch: Path,
        pieces: Sequence[Piece],
    ) -> None:
        self.graph, self.file, self.load, self.refused = graph, file, load, refused
        self.scratch, self.pieces = scratch, pieces
        self.fed = dict(zip(graph.input_names, refused.inputs, strict=True))
        self.exact = graph.everything(refused.inputs)
        self.true = [self.exact[node] for node in graph.outputs]
        # errors of the answer that was refused
        self.whole = [off(output, true) for output, true in zip(refused.outputs, self.true, strict=True)]
        self.seen = self.run(values(file.nodes))
        # what `none` says of an optimiser that is at fault
        self.unfused = ""
        self.errors = {piece.name: self.error(piece, self.seen) for piece in pieces}
        self.forgive()

    def forgive(self) -> None:
        """Takes back the error of a value that the quantising after it makes up for.

        A quantiser leaves out a Relu or Clip where the range of the bytes does the same: then the
        value before them is another than torch's, and so is what they do to it, but not the two
        together.
        """
        by_name = {piece.name: piece for piece in self.pieces}
        readers: dict[str, list[FileNode]] = {}
        for node in self.file.nodes:
            for name in node.inputs:
                readers.setdefault(name, []).append(node)
        after: dict[str, list[Error]] = {}
        for piece in self.pieces:
            source = by_name.get(piece.bound.get(piece.node, ""))
            if source is not None:
                both = piece._replace(bound=source.bound, parts=(*source.parts, *piece.parts))
                together = self.error(both, self.seen)
                after.setdefault(source.name, []).append(together)
                self.errors[piece.name] = min(self.errors[piece.name], together, key=excess)
        for name, together_each in after.items():
            if all(node.kind in QUANTISING for node in readers[name]):
                worst = max(together_each, key=excess)
                self.errors[name] = min(self.errors[name], worst, key=excess)

    def run(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns the file's values of these names, its outputs and its inputs among them."""
        own = [f"out{index}" for index in range(len(self.refused.outputs))]
        extra = [name for name in names if name not in own and name not in self.fed]
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            self.file.expose(Path(folder), extra)
            outputs = self.load(Path(folder))(self.refused.inputs)
        return {**self.fed, **dict(zip([*own, *extra], outputs, strict=True))}

    def node(self) -> Fault | None:
        """Returns the first node whose own error is enough to be refused for."""
        leaps = [piece for piece in self.pieces if not self.errors[piece.name].excess <= LEAP]
        for piece in leaps:
            if self.decides(self.moved(piece)):
                return self.fault(piece, self.seen)
        return None

    def error(self, piece: Piece, seen: Mapping[str, np.ndarray]) -> Error:
        """Returns a value's own error, given what the file had before it."""
        bound = self.bound(piece, seen)
        true = self.graph.values([piece.node], bound)[piece.node]
        eager = self.graph.values([piece.node], bound, self.refused.precision)[piece.node]
        return compare(seen[piece.name], true, eager, self.refused)

    def bound(self, piece: Piece, seen: Mapping[str, np.ndarray]) -> dict[Node, np.ndarray]:
        """Returns what a piece of torch's graph is computed from.

        Where torch needs a value that the file's node does not read, it gets the file's own.
        """
        bound = {node: seen[name] for node, name in piece.bound.items()}
        inputs = {node for node in self.graph.inputs if node not in bound}
        if inputs & self.graph.needed([piece.node], bound):
            others = {self.graph.named[name]: seen[name] for name in seen if name in self.graph.named}
            bound = {**others, **bound}
            if piece.node not in piece.bound:
                bound.pop(piece.node, None)
        return bound

    def moved(self, piece: Piece) -> list[float]:
        """Returns the RMSE of the module's outputs in fp64 if this node alone has its error."""
        true = self.graph.values([piece.node], self.bound(piece, self.seen))[piece.node]
        value, exact = torch.as_tensor(self.seen[piece.name]), self.exact[piece.node]
        if value.shape != true.shape or value.shape != exact.shape:
            return [np.inf for _ in self.true]
        changed = value.to(true.dtype)
        if true.is_floating_point():
            changed = exact + torch.where(changed == true, 0.0, changed - true)  # equal infinities
        outputs = self.graph.moved(self.exact, piece.node, changed)
        return [off(output.numpy(), true) for output, true in zip(outputs, self.true, strict=True)]

    def decides(self, errors: Sequence[float]) -> bool:
        """Returns whether errors of the outputs are what the answer was refused for."""
        broken = [
            not error <= allowed for error, allowed in zip(self.whole, self.refused.allowed, strict=True)
        ]
        limits = self.refused.allowed if any(broken) else [SHARE * error for error in self.whole]
        return any(not error <= limit for error, limit in zip(errors, limits, strict=True))

    def fused(self) -> Fault | None:
        """Returns the first node that is wrong where no value before it is an output, and with it
        the smallest part of the file that is wrong by itself.

        None where the worst output is about as wrong with every value an output.
        """
        multiples = [
            error / (allowed or 1.0) for error, allowed in zip(self.whole, self.refused.allowed, strict=True)
        ]
        index = max(range(len(multiples)), key=multiples.__getitem__)
        alone = off(self.seen[f"out{index}"], self.true[index])
        if not self.pieces or not alone <= SHARE * self.whole[index]:
            return None
        self.unfused = (
            f"; with every value an output the answer is off by {alone:.2g} and not"
            f" {self.whole[index]:.2g}, so {self.file.RUNTIME}'s optimiser makes it wrong, in no part"
            " that could be found"
        )
        low, high = 0, len(self.pieces) - 1
        while low < high:
            middle = (low + high) // 2
            if self.wrong(self.pieces[middle], self.run([self.pieces[middle].name])):
                high = middle
            else:
                low = middle + 1
        piece = self.pieces[high]
        if not self.wrong(piece, self.run([piece.name])):
            return None
        for longer in self.longer(piece):
            with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
                inputs = self.read(longer.parts)
                self.file.cut(Path(folder), longer.parts, inputs, piece.name)
                output = self.load(Path(folder))(tuple(inputs.values()))[0]
            seen = {**self.seen, piece.name: output}
            if self.wrong(longer, seen):
                return self.fault(longer, seen, fused=True)
        return None

    def wrong(self, piece: Piece, seen: Mapping[str, np.ndarray]) -> bool:
        """Returns whether a value is far from what it was with every value an output."""
        value, before = seen[piece.name], self.seen[piece.name]
        true = self.exact[piece.node]
        return not off(value, true) <= LEAP * (off(before, true) + self.floor(true))

    def floor(self, true: torch.Tensor) -> float:
        return check.half_ulp(self.refused.precision, size(true)) + check.summing(
            self.refused.terms, size(true)
        )

    def longer(self, piece: Piece) -> list[Piece]:
        """Returns ever longer pieces that end in the same value: each reaches one value further
        back on every path.
        """
        by_name = {other.name: other for other in self.pieces}
        order = {node: place for place, node in enumerate(self.file.nodes)}
        grown = [piece]
        while len(grown) < MOST_BACK:
            last = grown[-1]
            bound: dict[Node, str] = {}
            parts = set(last.parts)
            for node, name in last.bound.items():
                if name in by_name:
                    bound |= by_name[name].bound
                    parts |= set(by_name[name].parts)
                else:
                    bound[node] = name
            if len(parts) == len(last.parts):
                break
            ours = {name for part in parts for name in part.outputs}
            bound = {node: name for node, name in bound.items() if name not in ours}
            grown.append(Piece(piece.name, piece.node, bound, tuple(sorted(parts, key=order.__getitem__))))
        return grown

    def read(self, parts: Sequence[FileNode]) -> dict[str, np.ndarray]:
        """Returns the values that a part of the file reads and does not compute."""
        ours = {name for part in parts for name in part.outputs}
        names = dict.fromkeys(name for part in parts for name in part.inputs if name not in ours)
        return {name: self.seen[name] for name in names if name in self.seen}

    def fault(self, piece: Piece, seen: Mapping[str, np.ndarray], fused: bool = False) -> Fault:
        """Returns what is known of a node at fault."""
        error = self.error(piece, seen)
        bound = self.bound(piece, seen)
        true = self.graph.values([piece.node], bound)[piece.node]
        passed = self.graph.needed([piece.node], bound) - bound.keys() - self.graph.constants.keys()
        before = [
            off(seen[name], self.exact[node]) / (size(self.exact[node]) or 1.0)
            for node, name in piece.bound.items()
        ]
        # what only counts sizes is left out of the names
        floats = {name for name, value in seen.items() if value.dtype.kind == "f"}
        operators = [
            str(node.target)
            for node in self.graph.module.graph.nodes
            if node in passed and str(node.target).startswith("aten.")
        ]
        return Fault(
            piece.parts[-1],
            tuple(node for node in piece.parts[:-1] if floats & {*node.outputs}),
            tuple(operators),
            max(before, default=0.0),
            error.rmse / (size(true) or 1.0),
            error.allowed / (size(true) or 1.0),
            fused,
            SubGraph(piece.name, self.read(piece.parts), seen[piece.name], true.numpy(), piece.parts),
        )

    def none(self) -> str:
        """Returns the sentence where no node is at fault."""
        worst = max(self.pieces, key=lambda piece: excess(self.errors[piece.name]), default=None)
        if worst is None:
            return "no value of the file has a name of torch's graph, so nothing could be compared"
        return (
            f"no wrong node: torch computed {len(self.pieces)} values of the file again, each from what"
            " the file has before it, and none alone is off by enough; the furthest out is"
            f" {worst.parts[-1]}, at {self.errors[worst.name].excess:.2g} of what is allowed{self.unfused}"
        )
