"""The answer: what is known of one case after it was built, checked and measured, and the file that
holds the answers.

Base units inside: s, B, J, 1/s, FLOP. Every raw sample is kept; stats/estimates.py computes
statistics from them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from ..stats import estimates
from . import stored
from .case import Better, Case, Plan
from .environment import Environment
from .reasons import WRONG, Reason, Unreadable
from .stored import Count

# Version of the file's format. 1 (0.1.0): first version.
SCHEMA = 1

# ok: measured. noisy: measured, with too wide an interval. fell_back: it ran otherwise than asked.
# verified: proven without its device.
Status = Literal["ok", "noisy", "fell_back", "verified", "skipped", "failed"]
# How far a case was proven, from L0 (it imports) to L7 (the device ran it): oracle/ladder.py.
Rung = Literal["L0", "L1", "L2", "L3", "L4", "L5", "L6", "L7"]
# JSON has no NaN and no infinity: msgspec writes null, which is read as NaN again.
if TYPE_CHECKING:
    Real = float
else:
    Real = float | None


# No quantity in base units comes near (a second of the fastest machine has 1e19 FLOP), and neither
# squares nor sums of what lies between overflow.
LEAST, MOST = 1e-30, 1e30
# What the details of a metric must hold, and as what, since tables show it.
DETAILS: dict[str, dict[str, tuple[type, ...]]] = {
    "throughput": {"item": (str,)},
    "memory": {"growth_bytes": (int, float, type(None))},
}


class Samples(msgspec.Struct, frozen=True):
    """The samples of one metric of one case."""

    # Base unit of the values.
    unit: str
    # Which way the metric improves.
    better: Better
    # One tuple a block, in the order they were taken.
    values: tuple[tuple[float, ...], ...]
    # The number in the race of each value's turn, shaped as `values`.
    turns: tuple[tuple[int, ...], ...] = ()
    # What else the metric's file tells of them, by name.
    details: dict[str, float | int | str | None] = {}

    @property
    def blocks(self) -> tuple[float, ...]:
        """One number a block: the median of its samples."""
        return tuple(estimates.median(block) for block in self.values if block)

    @property
    def flat(self) -> tuple[float, ...]:
        """All samples in one row, for display only: they are not independent."""
        return tuple(value for block in self.values for value in block)

    @property
    def estimate(self) -> estimates.Estimate:
        """Centre and 95 % interval over blocks; of a single process, over batch means."""
        return estimates.estimate(self.values)

    @property
    def centre(self) -> float:
        """The estimate's centre, in the metric's unit."""
        return self.estimate.centre


class Proof(msgspec.Struct, frozen=True):
    """One rung of the ladder that a case reached without its device, and what shows it."""

    rung: Rung
    evidence: str


class Placement(msgspec.Struct, frozen=True):
    """Where the work really ran."""

    # What was asked for.
    requested: str
    # Provider, device or precision -> number of nodes.
    ran_on: dict[str, Count]
    # Name (counters.py) -> count.
    counters: dict[str, Count] = {}
    # Lines that show it, the names of files among them.
    evidence: tuple[str, ...] = ()
    # What differs from the request, so that the case fell back; None: nothing.
    wrong: Reason | None = None
    # What of it ran otherwise than asked although the case as a whole did not, in words; it becomes
    # a warning of the result.
    partial: str = ""


def _null_is_nan(record: msgspec.Struct, *names: str) -> None:
    """Sets those of the record's fields that JSON had as null to NaN."""
    for name in names:
        if getattr(record, name) is None:
            msgspec.structs.force_setattr(record, name, math.nan)


class Distance(msgspec.Struct, frozen=True):
    """How far the outputs for one kind of inputs are from the fp64 reference, and how far they may
    be.
    """

    # Root mean square error of the outputs, in their unit.
    rmse: Real
    # The same of eager PyTorch in the same precision.
    eager_rmse: Real
    # The largest rmse that counts as right: k * eager_rmse + floor.
    tolerance: Real
    # How many times as far as eager the outputs may be.
    k: float
    # What rounding alone may add.
    floor: float
    # Cosine of the angle between outputs and reference.
    cosine: float
    # Rows whose largest output is at another index than the reference's.
    top1_flips: Count
    # Numbers that were compared.
    elements: Count

    def __post_init__(self) -> None:
        _null_is_nan(self, "rmse", "eager_rmse", "tolerance")

    @property
    def within(self) -> bool:
        """Whether the outputs are as near as they must be; NaN and infinity are not."""
        return self.rmse <= self.tolerance < math.inf


class Task(msgspec.Struct, frozen=True):
    """The task metric on the validation split, beside the value that the fp32 reference reaches."""

    # Name of the metric that decides.
    metric: str
    # Which way it improves.
    better: Better
    # What the case reached, in the metric's unit.
    value: Real
    # What the fp32 reference reaches.
    reference: Real
    # How much worse than the reference the value may be.
    budget: float
    # Every metric that the workload's score gave, by name.
    all: dict[str, Real] = {}

    def __post_init__(self) -> None:
        _null_is_nan(self, "value", "reference")

    @property
    def loss(self) -> float:
        """How much worse than the reference, in the metric's unit; below 0 where it is better."""
        return self.reference - self.value if self.better == "higher" else self.value - self.reference

    @property
    def within(self) -> bool:
        """Whether the loss is within the budget; NaN is not."""
        return math.isfinite(self.value) and self.loss <= self.budget


class Deviation(msgspec.Struct, frozen=True):
    """How far the outputs of a case are from the reference."""

    # Kind of inputs (random, real, timed) -> distance.
    distances: dict[str, Distance] = {}
    # None where the workload has no task metric.
    task: Task | None = None


class Disturbance(msgspec.Struct, frozen=True):
    """What happened beside the timed calls: per sample in the order of the latency samples, shaped
    (block, sample), or per block.
    """

    # CPU time of the process a call, s.
    cpu_s: tuple[tuple[float, ...], ...]
    # The call before the sample that re-warmed the caches, s.
    first_s: tuple[tuple[float, ...], ...]
    # Calls a sample, per block.
    calls: tuple[Count, ...]
    # Involuntary context switches of all threads during the sample.
    switches: tuple[tuple[Count, ...], ...]
    # Moves of the main thread between cores during the sample.
    migrations: tuple[tuple[Count, ...], ...]
    # Minor page faults a call.
    faults: tuple[tuple[float, ...], ...]
    # Share of the machine's time that its host took away, per block.
    steal: tuple[float, ...]
    # Whether the times had settled when the block's samples began.
    steady: tuple[bool, ...]
    # Whether the scheduler was asked to prefer the workers, and why not, in words.
    priority: str = ""
    # What a block took of this case alone, from start to end of its worker, s.
    spent_s: tuple[float, ...] = ()

    @property
    def faults_per_call(self) -> float:
        """Median over all samples."""
        return estimates.median([value for block in self.faults for value in block])

    @property
    def switches_per_sample(self) -> float:
        """Mean over all samples."""
        return estimates.fmean([value for block in self.switches for value in block])


class Result(msgspec.Struct, frozen=True):
    """The answer for one case. Raises ValueError where a status other than ok has no reason."""

    case: Case
    # Shared by the entrants that were measured together.
    race_id: str
    # How it was measured.
    plan: Plan
    status: Status
    # Why the status is not ok; None where it is.
    reason: Reason | None = None
    # The highest rung that the case reached.
    verified_to: Rung = "L0"
    # Of a case whose device is not here, the rungs up to `verified_to`.
    proofs: tuple[Proof, ...] = ()
    # Phase of its build -> time that it took on this machine's CPU, s.
    build_s: dict[str, float] = {}
    # Where the weights come from, in words.
    weights: str = ""
    # How many items one sample of the batch holds.
    items: int = 1
    # What an item is called: image, token, row.
    item: str = "sample"
    # Where the work ran; None where nothing ran or was built.
    placement: Placement | None = None
    # Metric -> its samples, only of what was measured.
    metrics: dict[str, Samples] = {}
    # Metric -> why it was not measured.
    absent: dict[str, Reason] = {}
    # How far the outputs are from the reference; None where none were checked.
    deviation: Deviation | None = None
    # What happened beside the timed calls; None where nothing was timed.
    disturbance: Disturbance | None = None
    # Lines that a reader of the figures must know.
    warnings: tuple[str, ...] = ()
    # Key of its environment in Results.
    environment: str = ""
    # What ended its race, in words.
    stopped_by: str = ""
    # The folder its build left (artefacts/opening.py), relative to that of results.json; empty
    # where there is none.
    artefact: str = ""
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.status != "ok" and self.reason is None:
            raise ValueError(f"{self.case.id}: status {self.status} needs a reason")

    @property
    def contradiction(self) -> str | None:
        """Returns what a result with a time cannot hold: outputs or a place that are wrong; None
        where it holds nothing of the kind.
        """
        if self.status not in ("ok", "noisy"):
            return None
        if self.reason is not None and self.reason.code in WRONG:
            return f"the reason is {self.reason.code}"
        if self.placement is not None and self.placement.wrong is not None:
            return f"the work ran elsewhere: {self.placement.wrong.code}"
        if self.deviation is None:
            return None
        task, distances = self.deviation.task, self.deviation.distances
        if task is not None and not task.within:
            return f"{task.metric} is out of its budget"
        # Of int8 the task metric alone decides; an artefact's was judged when it was built.
        if self.case.precision == "int8":
            return None
        far = [kind for kind, distance in distances.items() if not distance.within]
        return f"outputs on {far[0]} inputs are too far off" if far else None


class Results(msgspec.Struct, frozen=True):
    """The file `results.json`."""

    # Name of the run.
    run: str
    # The command line that began it.
    command: str
    # Key -> environment; each result names its own.
    environment: dict[str, Environment]
    # The cases that were asked for.
    asked: tuple[Case, ...] = ()
    # Workload name -> the checkpoint named for it on the command line.
    references: dict[str, str] = {}
    # The results so far.
    results: tuple[Result, ...] = ()
    # When the run began, ISO 8601 in UTC.
    started: str = ""
    schema: int = SCHEMA
    # Workload name -> the arguments for what makes it, as text.
    arguments: dict[str, dict[str, str]] = {}


def now() -> str:
    """Returns the time, ISO 8601 in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class _Version(msgspec.Struct):
    """The part of a file that is read first: another schema may have other fields."""

    schema: int


def encode(results: Results) -> bytes:
    """Returns the file's content: JSON with one result a line."""
    lines = b",\n".join(msgspec.json.encode(result) for result in results.results)
    head = msgspec.json.encode(msgspec.structs.replace(results, results=()))
    return head.replace(b'"results":[]', b'"results":[\n' + lines + b"\n]", 1) + b"\n"


def read(path: Path) -> Results:
    """Reads a results file.

    Raises Misuse where there is none, Unreadable for one that cannot be used, each with one line.
    """
    content, wrong = stored.content(path), "not a results file of hotlap"
    schema = stored.decode(path, content, _Version, wrong).schema
    if schema != SCHEMA:
        raise Unreadable(
            f"{path}: schema {schema}, this hotlap reads {SCHEMA}; measure again or use the hotlap that"
            " wrote it"
        )
    results = stored.decode(path, content, Results, wrong)
    try:
        check(results.results)
    except ValueError as error:
        raise Unreadable(f"{path}: {error}") from None
    return results


def check(results: Sequence[Result]) -> None:
    """Raises ValueError where a result holds a number that nothing can have measured, or says that
    it is right and holds that it is not.
    """
    for result in results:
        if (wrong := result.contradiction) is not None:
            raise ValueError(f"{result.case.id}: status {result.status} although {wrong}")
        for name, samples in result.metrics.items():
            if not any(samples.values):
                raise ValueError(f"{result.case.id}: {name} has no values")
            least = LEAST if name == "latency" else 0
            if not all(least <= value <= MOST for value in samples.flat):
                raise ValueError(f"{result.case.id}: {name} holds a value that is no measurement")
            for detail, kind in DETAILS.get(name, {}).items():
                value = samples.details.get(detail, ...)
                if not isinstance(value, kind) or (isinstance(value, int | float) and not abs(value) <= MOST):
                    raise ValueError(f"{result.case.id}: {name} lacks its {detail}")
