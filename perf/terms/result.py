"""The answer: what is known of one case after it was built, checked and measured, and the file that
holds the answers.

Base units inside: s, B, J, 1/s, FLOP. Every raw sample is kept; statistics are computed from them
in estimates.py.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from ..stats import estimates
from .case import Better, Case, Plan
from .environment import Environment
from .reasons import Misuse, Reason, Unreadable

# 1 (0.1.0): first version.
SCHEMA = 1

Status = Literal["ok", "noisy", "fell_back", "verified", "skipped", "failed"]
Rung = Literal["L0", "L1", "L2", "L3", "L4", "L5", "L6", "L7"]
# JSON has no NaN and no infinity: msgspec writes null, which is read as NaN again.
if TYPE_CHECKING:
    Real = float
else:
    Real = float | None
Count = Annotated[int, msgspec.Meta(ge=0)]


class Samples(msgspec.Struct, frozen=True):
    """The samples of one metric: one tuple a block, in the order they were taken; `turns` are their
    numbers in the race.
    """

    unit: str
    better: Better
    values: tuple[tuple[float, ...], ...]
    turns: tuple[tuple[int, ...], ...] = ()
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
        """Centre and 95 % interval over blocks (with fewer than 3 blocks, over batch means of the
        only process).
        """
        return estimates.estimate(self.values)

    @property
    def centre(self) -> float:
        return self.estimate.centre


class Proof(msgspec.Struct, frozen=True):
    """One rung of the ladder that a case reached without its device, and what shows it."""

    rung: Rung
    evidence: str


class Placement(msgspec.Struct, frozen=True):
    """Where the work really ran.

    `ran_on`: provider, device or precision -> number of nodes; `wrong`: what differs from the
    request, so that the case fell back.

    partial: what of it ran otherwise than asked although the case as a whole did not, in words; it
    becomes a warning of the result.
    """

    requested: str
    ran_on: dict[str, Count]
    counters: dict[str, Count] = {}
    evidence: tuple[str, ...] = ()
    wrong: Reason | None = None
    partial: str = ""


def _null_is_nan(found: msgspec.Struct, *names: str) -> None:
    for name in names:
        if getattr(found, name) is None:
            msgspec.structs.force_setattr(found, name, math.nan)


class Distance(msgspec.Struct, frozen=True):
    """How far the outputs for one kind of inputs are from the fp64 reference, and how far they may
    be.
    """

    rmse: Real
    eager_rmse: Real
    tolerance: Real
    k: float
    floor: float
    cosine: float
    top1_flips: int
    elements: int

    def __post_init__(self) -> None:
        _null_is_nan(self, "rmse", "eager_rmse", "tolerance")

    @property
    def within(self) -> bool:
        return self.rmse <= self.tolerance < math.inf


class Task(msgspec.Struct, frozen=True):
    """The task metric on the validation split, beside the value that the fp32 reference reaches."""

    metric: str
    better: Better
    value: Real
    reference: Real
    budget: float
    all: dict[str, Real] = {}

    def __post_init__(self) -> None:
        _null_is_nan(self, "value", "reference")

    @property
    def loss(self) -> float:
        return self.reference - self.value if self.better == "higher" else self.value - self.reference

    @property
    def within(self) -> bool:
        return math.isfinite(self.value) and self.loss <= self.budget


class Deviation(msgspec.Struct, frozen=True):
    """What check found: a distance for each kind of inputs (random, real, timed) and the task
    metric where there is one.
    """

    distances: dict[str, Distance] = {}
    task: Task | None = None


class Disturbance(msgspec.Struct, frozen=True):
    """What happened beside the timed calls, per sample in the order of the latency samples, and per
    block.

    cpu_s: CPU time of the process a call. first_s: the call that re-warmed the caches. switches:
    involuntary context switches of all threads. migrations: of the main thread between cores.
    faults: minor page faults a call. steal: share of the machine that its host took, a block.
    spent_s: what a block took of this case alone, from start to end of its worker. priority:
    whether the scheduler was asked to prefer the workers, and why not.
    """

    cpu_s: tuple[tuple[float, ...], ...]
    first_s: tuple[tuple[float, ...], ...]
    calls: tuple[int, ...]
    switches: tuple[tuple[int, ...], ...]
    migrations: tuple[tuple[int, ...], ...]
    faults: tuple[tuple[float, ...], ...]
    steal: tuple[float, ...]
    steady: tuple[bool, ...]
    priority: str = ""
    spent_s: tuple[float, ...] = ()

    @property
    def faults_per_call(self) -> float:
        return estimates.median([value for block in self.faults for value in block])

    @property
    def switches_per_sample(self) -> float:
        return estimates.fmean([value for block in self.switches for value in block])


class Result(msgspec.Struct, frozen=True):
    """The answer for one case.

    Entrants of one race share `race_id`; `metrics` holds only what was measured, `absent` the
    reasons for the rest.

    proofs: of a case whose device is not here, the rungs up to `verified_to`. build_s: what each
    phase of its build took on this machine's CPU. artefact: what its build left (opening.py),
    relative to the folder of results.json; empty where there is none.
    """

    case: Case
    race_id: str
    plan: Plan
    status: Status
    reason: Reason | None = None
    verified_to: Rung = "L0"
    proofs: tuple[Proof, ...] = ()
    build_s: dict[str, float] = {}
    weights: str = ""
    items: int = 1
    item: str = "sample"
    placement: Placement | None = None
    metrics: dict[str, Samples] = {}
    absent: dict[str, Reason] = {}
    deviation: Deviation | None = None
    disturbance: Disturbance | None = None
    warnings: tuple[str, ...] = ()
    environment: str = ""
    stopped_by: str = ""
    artefact: str = ""
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.status != "ok" and self.reason is None:
            raise ValueError(f"{self.case.id}: status {self.status} needs a reason")


class Results(msgspec.Struct, frozen=True):
    """The file `results.json`: environments by key (results name theirs), what was asked, and the
    results so far.

    references: workload name -> the checkpoint given for it on the command line. started: when, ISO
    8601 in UTC.
    """

    run: str
    command: str
    environment: dict[str, Environment]
    asked: tuple[Case, ...] = ()
    references: dict[str, str] = {}
    results: tuple[Result, ...] = ()
    started: str = ""
    schema: int = SCHEMA


def now() -> str:
    """ISO 8601 in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class _Head(msgspec.Struct):
    """What is read first: another schema may have other fields."""

    schema: int


def encode(results: Results) -> bytes:
    """JSON with one result a line."""
    lines = b",\n".join(msgspec.json.encode(one) for one in results.results)
    head = msgspec.json.encode(msgspec.structs.replace(results, results=()))
    return head.replace(b'"results":[]', b'"results":[\n' + lines + b"\n]", 1) + b"\n"


def read(path: Path) -> Results:
    """Raises Misuse with one line that says what is wrong with the file."""
    try:
        content = path.read_bytes()
        schema = msgspec.json.decode(content, type=_Head).schema
        results = msgspec.json.decode(content, type=Results) if schema == SCHEMA else None
    except FileNotFoundError:
        raise Misuse(f"{path}: not a results file of hotlap: [Errno 2] there is no such file") from None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"{path}: not a results file of hotlap: {error}") from None
    if results is None:
        raise Unreadable(
            f"{path}: schema {schema}, this hotlap reads {SCHEMA}; measure again or use the hotlap that"
            " wrote it"
        )
    return results
