"""The question: what is measured (Workload) and how it is run (Case).

Nothing here imports torch: a case is made of names only, and a workload only carries what its
author put in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import msgspec

from .reasons import Misuse

if TYPE_CHECKING:
    import numpy as np
    import torch

PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "int8")
MODES = ("inference", "train")
ARCHITECTURES = ("sm_", "gfx")
Better = Literal["higher", "lower"]

_NAME = re.compile(r"[A-Za-z0-9._+:-]+")
_TARGET = re.compile(r"cpu|cuda:\d+|sm_\d+|gfx[0-9a-f]+")
_ID = re.compile(
    r"(?P<workload>[^/]+)/(?P<backend>[^/]+)/(?P<precision>[^/]+)/b(?P<batch>\d+)/(?P<target>[^/]+)/(?P<mode>[^/\[]+)(?P<options>(\[[^\]]+\])*)"
)


@dataclass(frozen=True)
class Evaluation:
    """The task metric of a workload on its validation split.

    inputs: real inputs of the whole split, first dimension N (the number of samples). score: takes
    the outputs for `inputs` as float arrays (N, ...) and returns metric name -> value. metric,
    better: which of those values decides, and which way is better. budget: how much the deciding
    metric may get worse before outputs count as wrong, in the metric's own unit. int8_budget: the
    same for int8, which gives up accuracy on purpose; None: no more than for the others.
    """

    inputs: tuple[torch.Tensor, ...]
    score: Callable[[tuple[np.ndarray, ...]], Mapping[str, float]]
    metric: str
    better: Better
    budget: float
    int8_budget: float | None = None


@dataclass(frozen=True)
class Workload:
    """All that the harness knows of a model.

    module: a torch.nn.Module in eval mode on the CPU in fp32; called as `module(*inputs)`; returns
    a tensor or a tuple of tensors. inputs: one batch of real example inputs, each (B, ...). items,
    item: how many items one sample (one row of the batch) holds, and what an item is called (image,
    token, row). dynamic: whether dimension 0 of every input is a batch that may have any size.
    evaluate: the task metric, or None where there is none. calibration: real inputs of the training
    split, first dimension N, from which int8 takes the ranges of activations; None: the example
    inputs are all there is. weights: where the weights come from, in words that are printed with
    every result. checkpoint: path of the Lightning checkpoint that it was asked for with; empty
    without one.
    """

    name: str
    module: torch.nn.Module
    inputs: tuple[torch.Tensor, ...]
    items: int = 1
    item: str = "sample"
    dynamic: bool = True
    evaluate: Evaluation | None = None
    calibration: tuple[torch.Tensor, ...] | None = None
    weights: str = "as given"
    checkpoint: str = ""

    def __post_init__(self) -> None:
        if not self.inputs:
            raise Misuse(f"workload {self.name}: inputs is empty; give one batch of example inputs")
        if self.items < 1:
            raise Misuse(f"workload {self.name}: items must be at least 1, not {self.items}")


@dataclass(frozen=True, order=True)
class Case:
    """One way to run one workload. Names only; `id` is its key everywhere."""

    workload: str
    backend: str
    precision: str = "fp32"
    batch: int = 1
    target: str = "cpu"
    mode: str = "inference"
    options: tuple[tuple[str, str], ...] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(sorted((name, value) for name, value in self.options)))
        words = [self.workload, self.backend, *(word for pair in self.options for word in pair)]
        for word in words:
            if not _NAME.fullmatch(word) or word.strip(".") == "":
                raise Misuse(f"{word!r} cannot be part of a case: use letters, digits and . _ - + :")
        if any(":" in word for pair in self.options for word in pair):
            raise Misuse(
                f"an option of case {self.workload}/{self.backend} has a colon in its name or value:"
                f" {self.options}"
            )
        if self.precision not in PRECISIONS:
            raise Misuse(f"precision {self.precision!r} is none of {', '.join(PRECISIONS)}")
        if self.mode not in MODES:
            raise Misuse(f"mode {self.mode!r} is none of {', '.join(MODES)}")
        if self.batch < 1:
            raise Misuse(f"batch must be at least 1, not {self.batch}")
        if not _TARGET.fullmatch(self.target):
            raise Misuse(f"target {self.target!r} is neither cpu, cuda:N nor an architecture such as sm_89")

    @property
    def id(self) -> str:
        question = f"{self.workload}/{self.backend}/{self.precision}/b{self.batch}"
        return f"{question}/{self.target}/{self.mode}{self.settings}"

    @property
    def settings(self) -> str:
        """The options as `id` writes them."""
        return "".join(f"[{name}:{value}]" for name, value in self.options)

    @property
    def spec(self) -> str:
        """The backend with its options, as cases.parse_backend reads it."""
        return self.backend + self.settings

    @property
    def label(self) -> str:
        """What tells the entrants of one race apart, in words."""
        return f"{self.spec} {self.precision}"

    @property
    def group(self) -> str:
        """What the entrants of one race share: the same question asked of several backends and
        precisions, and of all architectures, where nothing runs.
        """
        return (
            f"{self.workload}/b{self.batch}/{'architectures' if self.built_only else self.target}/{self.mode}"
        )

    @property
    def built_only(self) -> bool:
        """The target is an architecture by name: a case is built for it, and runs nowhere."""
        return self.target.startswith(ARCHITECTURES)

    def option(self, name: str, default: str) -> str:
        return dict(self.options).get(name, default)

    @classmethod
    def parse(cls, text: str) -> Case:
        """The inverse of `id`. Raises Misuse with the expected form."""
        found = _ID.fullmatch(text)
        if not found:
            raise Misuse(
                f"{text!r} is no case; expected workload/backend/precision/bN/target/mode[name:value]..."
            )
        pairs = [tuple(pair.split(":", 1)) for pair in re.findall(r"\[([^\]]+)\]", found["options"])]
        if any(len(pair) != 2 for pair in pairs):
            raise Misuse(f"{text!r}: an option is written [name:value]")
        options = tuple((pair[0], pair[1]) for pair in pairs)
        return cls(
            found["workload"],
            found["backend"],
            found["precision"],
            int(found["batch"]),
            found["target"],
            found["mode"],
            options,
        )


class Plan(msgspec.Struct, frozen=True):
    """How a race is measured. Times in s.

    budget_s: for the blocks of one race. looks: numbers of blocks after which the intervals are
    looked at. rounds: turns of each entrant in a block, to begin with. sample_s, longest_sample_s:
    length of a sample. tail_s: length of the pass of single calls, a block and entrant. half_width:
    of the ratio to the baseline, at which a race is finished; above noisy_half_width at the end it
    is noisy. timeout_s: for one answer of a worker. fresh_blocks: first blocks whose workers import
    everything themselves; later ones may be forked.
    """

    budget_s: float = 90.0
    looks: tuple[int, ...] = (6, 9, 14, 20, 30)
    rounds: int = 30
    sample_s: float = 0.005
    longest_sample_s: float = 0.050
    tail_s: float = 0.2
    half_width: float = 0.02
    noisy_half_width: float = 0.05
    timeout_s: float = 300.0
    threads: int = 1
    fresh_blocks: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.budget_s <= 0 or self.rounds < 1 or self.timeout_s <= 0 or not self.looks:
            raise Misuse(
                f"a plan needs a budget and a timeout above 0 s, at least one round and one look: {self}"
            )
