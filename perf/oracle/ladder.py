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
from . import arrays

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
    """proofs: the rungs reached, in order.

    stopped: why it went no further, None where only the device is missing. build_s: seconds of each
    phase on this machine's CPU.
    """

    proofs: tuple[Proof, ...] = ()
    placement: Placement | None = None
    deviation: Deviation | None = None
    stopped: Reason | None = None
    build_s: dict[str, float] = {}
    artefact_bytes: int = 0

    @property
    def rung(self) -> Rung:
        return self.proofs[-1].rung if self.proofs else "L0"


def read(folder: Path) -> Ladder:
    """Of a folder in which `climb` was at work; empty where it did not reach L0."""
    file = folder / FILE
    return msgspec.json.decode(file.read_bytes(), type=Ladder) if file.exists() else Ladder()


class Yardstick(NamedTuple):
    """What the lowered graph is held against: the oracle's folder, the longest sum
    (reference.Counts), the task metric's reference where there is one.
    """

    oracle: Path
    precision: str
    terms: int
    task: TaskMetric | None
    evaluation: Evaluation | None
    batch: int


def climb(rungs: Iterator[Proven], folder: Path, yardstick: Yardstick, build_s: dict[str, float]) -> Ladder:
    """Takes one rung after the other; that of the lowered graph only if its outputs pass the
    oracle.
    """
    from . import check

    found = Ladder()
    try:
        for proven in rungs:
            if proven.lowered is not None:
                deviation = distance(proven.lowered, folder, yardstick)
                found = msgspec.structs.replace(found, deviation=deviation)
                check.judge(deviation, yardstick.precision, yardstick.task is not None)
            proofs = (*found.proofs, Proof(proven.rung, proven.evidence))
            found = msgspec.structs.replace(
                found,
                proofs=proofs,
                placement=proven.placement or found.placement,
                build_s=ledger(folder, build_s),
            )
            write(folder / FILE, msgspec.json.encode(found))
    except Refusal as refusal:
        found = msgspec.structs.replace(found, stopped=refusal.reason)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name != FILE)
    found = msgspec.structs.replace(found, build_s=ledger(folder, build_s), artefact_bytes=size)
    write(folder / FILE, msgspec.json.encode(found))
    return found


def ledger(folder: Path, build_s: dict[str, float]) -> dict[str, float]:
    """What was timed, but for steps whose outcome was made earlier (an export that cases share, a
    cached engine): of those ledger.json has what they took then.
    """
    shared = folder / "ledger.json"
    return {
        **build_s,
        **(msgspec.json.decode(shared.read_bytes(), type=dict[str, float]) if shared.exists() else {}),
    }


def distance(lowered: Callable[[Arrays], Arrays], folder: Path, yardstick: Yardstick) -> Deviation:
    """Of the lowered graph's outputs to fp64, and its task metric where there is one."""
    from . import check

    outputs = {kind: folder / f"lowered-{kind}.npz" for kind in ("random", "real")}
    for kind, file in outputs.items():
        arrays.on_stored(lowered, yardstick.oracle / f"{kind}.npz", file)
    found = check.distances(yardstick.oracle, outputs, yardstick.precision, yardstick.terms)
    for file in outputs.values():
        file.unlink()
    if yardstick.task is None or yardstick.evaluation is None:
        return Deviation(found)
    rows = [value.numpy() for value in yardstick.evaluation.inputs]
    scores = yardstick.evaluation.score(arrays.on_split(lowered, rows, yardstick.batch))
    return Deviation(
        found,
        check.task(
            yardstick.task, {name: float(value) for name, value in scores.items()}, yardstick.precision
        ),
    )
