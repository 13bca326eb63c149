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

# Finest first: the baseline of a race is eager in the finest precision that is asked for.
PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "int8")
# train: one step of the optimiser.
MODES = ("inference", "train")
# How a target begins that is an architecture to build for: NVIDIA's, AMD's.
ARCHITECTURES = ("sm_", "gfx")
# How the names of model files end: of ONNX, and of what torch.export.save writes.
ONNX = ".onnx"
PROGRAM = ".pt2"
# Which way a quantity improves.
Better = Literal["higher", "lower"]

# What the free axis 0 is called in a file.
BATCH = "batch"
# Of workers, for the scheduler: as any process, or preferred.
Priority = Literal["normal", "raised"]

# The largest machines have a tenth.
MOST_THREADS = 65536
# A word of a case's id: what file systems, shells and pytest's -k (no = and ,) take alike.
_NAME = re.compile(r"[A-Za-z0-9._+:-]+")
_TARGET = re.compile(r"cpu|cuda:\d{1,4}|sm_\d{1,4}|gfx[0-9a-f]+")
_ID = re.compile(
    r"(?P<workload>[^/]+)/(?P<backend>[^/]+)/(?P<precision>[^/]+)/b(?P<batch>\d{1,9})"
    r"/(?P<target>[^/]+)/(?P<mode>[^/\[]+)(?P<options>(\[[^\]]+\])*)"
)


def is_file(workload: str) -> bool:
    """Returns whether a workload's name is that of a model file."""
    return workload.endswith((ONNX, PROGRAM))


@dataclass(frozen=True)
class Evaluation:
    """The task metric of a workload on its validation split."""

    # Real inputs of the whole split, first dimension N (the number of samples).
    inputs: tuple[torch.Tensor, ...]
    # From the outputs for `inputs`, as float arrays (N, ...), to metric name -> value.
    score: Callable[[tuple[np.ndarray, ...]], Mapping[str, float]]
    # Which of those values decides.
    metric: str
    # Which way the deciding metric improves.
    better: Better
    # How much it may get worse before outputs count as wrong, in its own unit.
    budget: float
    # The same for int8, which gives up accuracy on purpose; None: no more than for the others.
    int8_budget: float | None = None


@dataclass(frozen=True)
class Workload:
    """All that the harness knows of a model. Raises Misuse where it has no inputs or no items."""

    # How results and messages call it.
    name: str
    # In eval mode on the CPU in fp32; called as `module(*inputs)`; returns a tensor or a tuple.
    module: torch.nn.Module
    # One batch of real example inputs, each (B, ...).
    inputs: tuple[torch.Tensor, ...]
    # How many items one sample (one row of the batch) holds.
    items: int = 1
    # What an item is called: image, token, row.
    item: str = "sample"
    # Whether dimension 0 of every input is a batch that may have any size; or input -> axis -> name
    # of the other axes that may besides it: {"x": {1: "time"}}.
    dynamic: bool | Mapping[str, Mapping[int, str]] = True
    # Whether dimension 0 is a batch at all; otherwise a call takes the example inputs as they are.
    batched: bool = True
    # The task metric; None where there is none.
    evaluate: Evaluation | None = None
    # Real inputs of the training split, first dimension N, from which int8 takes the ranges of
    # activations; None: the example inputs are all there is.
    calibration: tuple[torch.Tensor, ...] | None = None
    # Where the weights come from, in words that are printed with every result.
    weights: str = "as given"
    # Path of the Lightning checkpoint that it was asked for with; empty without one.
    checkpoint: str = ""
    # What forward calls each input; empty where nobody has said.
    names: tuple[str, ...] = ()
    # The other free axes that `dynamic` named: input -> axis -> name.
    axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    # What a reader of every result should know of how it is called.
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.inputs:
            raise Misuse(f"workload {self.name}: inputs is empty; give one batch of example inputs")
        if self.items < 1:
            raise Misuse(f"workload {self.name}: items must be at least 1, not {self.items}")
        if isinstance(self.dynamic, Mapping):
            object.__setattr__(self, "axes", self.dynamic)
            object.__setattr__(self, "dynamic", True)

    @property
    def batch(self) -> int:
        """The rows of the example inputs; 1 where dimension 0 is no batch."""
        first = self.inputs[0]
        return first.shape[0] if self.batched and first.ndim else 1

    @property
    def free(self) -> list[dict[int, str]]:
        """The axes of each input that may have any size, and what they are called."""
        axes = [dict(self.axes.get(name, {})) for name in self.names or [""] * len(self.inputs)]
        return [{0: BATCH, **each} if self.dynamic else each for each in axes]


@dataclass(frozen=True, order=True)
class Case:
    """One way to run one workload. Names only; `id` is its key everywhere.

    Raises Misuse for a name or value that cannot be part of a case.
    """

    # A reference as lookup.workloads reads it.
    workload: str
    # The name of a backend's file.
    backend: str
    # One of PRECISIONS.
    precision: str = "fp32"
    # Rows of every input: the size of dimension 0, or 1 where that is no batch.
    batch: int = 1
    # Device that runs it (cpu, cuda:0), or an architecture to build for (sm_89).
    target: str = "cpu"
    # One of MODES.
    mode: str = "inference"
    # Name and value of each option that differs from the backend's default, sorted.
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
        """workload/backend/precision/bN/target/mode[name:value]..."""
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
        target = "architectures" if self.built_only else self.target
        return f"{self.workload}/b{self.batch}/{target}/{self.mode}"

    @property
    def built_only(self) -> bool:
        """Whether the target is an architecture: the case is built for it, and runs nowhere."""
        return self.target.startswith(ARCHITECTURES)

    def option(self, name: str, default: str) -> str:
        """Returns the value of the option of that name, or the default where it is not set."""
        return dict(self.options).get(name, default)

    def threads(self, most: int) -> int:
        """Returns how many threads the case has of those that its race may use."""
        own = self.option("threads", "all")
        return most if own == "all" else min(most, int(own))

    @classmethod
    def parse(cls, text: str) -> Case:
        """Reads an `id`. Raises Misuse with the expected form."""
        match = _ID.fullmatch(text)
        if not match:
            raise Misuse(
                f"{text[:200]!r} is no case; expected"
                " workload/backend/precision/bN/target/mode[name:value]..."
            )
        pairs = [tuple(pair.split(":", 1)) for pair in re.findall(r"\[([^\]]+)\]", match["options"])]
        if any(len(pair) != 2 for pair in pairs):
            raise Misuse(f"{text!r}: an option is written [name:value]")
        return cls(
            workload=match["workload"],
            backend=match["backend"],
            precision=match["precision"],
            batch=int(match["batch"]),
            target=match["target"],
            mode=match["mode"],
            options=tuple((pair[0], pair[1]) for pair in pairs),
        )


class Plan(msgspec.Struct, frozen=True):
    """How a race is measured. Raises Misuse where nothing could be measured by it."""

    # Time for the blocks of one race, s.
    budget_s: float = 90.0
    # Numbers of blocks after which the intervals are looked at; the last is the most there will be.
    looks: tuple[int, ...] = (6, 9, 14, 20, 30)
    # Turns of each entrant in a block, to begin with.
    rounds: int = 30
    # Length of a sample at least, s: as many calls as it takes.
    sample_s: float = 0.005
    # Length of a sample at most, s, but for a single call that takes longer.
    longest_sample_s: float = 0.050
    # Length of the pass of single calls, from which percentiles are taken, a block and entrant, s.
    tail_s: float = 0.2
    # Half-width of the ratio to the baseline, on the log scale, at which a race is finished.
    half_width: float = 0.02
    # Half-width above which a result is noisy when the race ends.
    noisy_half_width: float = 0.05
    # Longest wait for one answer of a worker, s.
    timeout_s: float = 300.0
    # Threads of each entrant.
    threads: int = 1
    # First blocks whose workers import everything themselves; later ones may be forked.
    fresh_blocks: int = 1
    # Of the random order of turns.
    seed: int = 0
    # Whether the scheduler is asked to prefer a worker while it is its turn (race/priority.py).
    priority: Priority = "raised"
    # CPUs and memory that each worker is held to (machine/box.py), as `cpus=2,memory=1073741824B`;
    # empty where it has those of the machine.
    box: str = ""

    def __post_init__(self) -> None:
        if self.budget_s <= 0 or self.rounds < 1 or self.timeout_s <= 0 or not self.looks:
            raise Misuse(
                f"a plan needs a budget and a timeout above 0 s, at least one round and one look: {self}"
            )
        if not 1 <= self.threads <= MOST_THREADS:
            raise Misuse(f"threads must be 1 to {MOST_THREADS}")
