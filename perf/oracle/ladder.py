"""The ladder: how far a case for a GPU was proven on a machine that has none.

Below L7 it carries no time.

A backend's `verify` gives one rung after the other. They are written down as they come, so that a
library that ends the process takes none of them away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ..terms.files import write
from ..terms.reasons import Reason, Refusal
from ..terms.result import Deviation, Placement, Proof, Rung
from . import arrays, check

if TYPE_CHECKING:
    from ..terms.case import Evaluation
    from ..terms.contract import Arrays, Proven
    from ..terms.work import TaskMetric

MEANING: dict[Rung, str] = {
    "L0": "imports and configuration",
    "L1": "exported for the device",
    "L2": "partitioned: what of it the library takes",
    "L3": "the lowered graph equals eager on the CPU",
    "L4": "code generated",
    "L5": "kernels or engine built for the architecture",
    "L6": "telemetry exercised on a stand-in NVML",
    "L7": "executed on the device",
}
FILE = "ladder.json"


class Ladder(msgspec.Struct, frozen=True):
    """How far a case was proven, and with what."""

    # The rungs reached, in order.
    proofs: tuple[Proof, ...] = ()
    # Where the work would run, as far as the last rung that knows it says.
    placement: Placement | None = None
    # How far the outputs of the lowered graph are from fp64; None below L3.
    deviation: Deviation | None = None
    # Why it went no further; None where only the device is missing.
    stopped: Reason | None = None
    # Seconds of each phase on this machine's CPU.
    build_s: dict[str, float] = {}
    # Size of what the build left in the folder.
    artefact_bytes: int = 0

    @property
    def rung(self) -> Rung:
        """The highest rung reached."""
        return self.proofs[-1].rung if self.proofs else "L0"


def read(folder: Path) -> Ladder:
    """Returns the ladder of a folder in which `climb` was at work; empty below L0."""
    file = folder / FILE
    return msgspec.json.decode(file.read_bytes(), type=Ladder) if file.exists() else Ladder()


class Yardstick(NamedTuple):
    """What the lowered graph is held against."""

    # The folder of the oracle's files (reference.py).
    oracle: Path
    # The case's precision.
    precision: str
    # The longest sum behind an element (reference.Counts).
    terms: int
    # The task metric; None where there is none.
    task: TaskMetric | None
    # The validation split and how it is scored; None where there is none.
    evaluation: Evaluation | None
    # Rows of a batch.
    batch: int


def climb(rungs: Iterator[Proven], folder: Path, yardstick: Yardstick, build_s: dict[str, float]) -> Ladder:
    """Takes one rung after the other, the lowered graph's only if its outputs pass the oracle.

    Every rung is written into the folder as it comes (FILE). A Refusal ends the climb and becomes
    `stopped`.
    """
    ladder = Ladder()
    try:
        for proven in rungs:
            if proven.lowered is not None:
                deviation = distance(proven.lowered, folder, yardstick)
                ladder = msgspec.structs.replace(ladder, deviation=deviation)
                check.judge(deviation, yardstick.precision, yardstick.task is not None)
            ladder = msgspec.structs.replace(
                ladder,
                proofs=(*ladder.proofs, Proof(proven.rung, proven.evidence)),
                placement=proven.placement or ladder.placement,
                build_s=ledger(folder, build_s),
            )
            write(folder / FILE, msgspec.json.encode(ladder))
    except Refusal as refusal:
        ladder = msgspec.structs.replace(ladder, stopped=refusal.reason)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name != FILE)
    ladder = msgspec.structs.replace(ladder, build_s=ledger(folder, build_s), artefact_bytes=size)
    write(folder / FILE, msgspec.json.encode(ladder))
    return ladder


def ledger(folder: Path, build_s: dict[str, float]) -> dict[str, float]:
    """Returns the seconds of each phase, in place of those timed now those of ledger.json.

    ledger.json has what a step took whose outcome was made earlier: an export that cases share, a
    cached engine.
    """
    shared = folder / "ledger.json"
    if not shared.exists():
        return dict(build_s)
    return {**build_s, **msgspec.json.decode(shared.read_bytes(), type=dict[str, float])}


def distance(lowered: Callable[[Arrays], Arrays], folder: Path, yardstick: Yardstick) -> Deviation:
    """Returns how far the lowered graph's outputs are from fp64, and its task metric if any."""
    outputs = {
        kind: folder / f"lowered-{kind}.npz"
        for kind in ("random", "real")
        if (yardstick.oracle / f"{kind}.npz").is_file()
    }
    for kind, file in outputs.items():
        arrays.on_stored(lowered, yardstick.oracle / f"{kind}.npz", file)
    distances = check.distances(yardstick.oracle, outputs, yardstick.precision, yardstick.terms)
    for file in outputs.values():
        file.unlink()
    if yardstick.task is None or yardstick.evaluation is None:
        return Deviation(distances)
    rows = [value.numpy() for value in yardstick.evaluation.inputs]
    scores = yardstick.evaluation.score(arrays.on_split(lowered, rows, yardstick.batch))
    numbers = {name: float(value) for name, value in scores.items()}
    return Deviation(distances, check.task(yardstick.task, numbers, yardstick.precision))
