"""The ladder: how far a case for a GPU was proven on a machine that has none. Below L7 it carries no time.

A backend's `verify` gives one rung after the other. They are written down as they come, so that a library that ends the process takes none of them away.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from .reasons import Reason, Refusal
from .result import Deviation, Placement, Proof, Rung, write

if TYPE_CHECKING:
    from .backends import Arrays, Proven

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
    """proofs: the rungs reached, in order. stopped: why it went no further, None where only the device is missing. build_s: seconds of each phase on this machine's CPU."""

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


def climb(rungs: Iterator[Proven], folder: Path, oracle: Path, precision: str, terms: int, build_s: dict[str, float]) -> Ladder:
    """Takes one rung after the other; that of the lowered graph only if its outputs pass the oracle."""
    found = Ladder()
    try:
        for proven in rungs:
            evidence = proven.evidence
            if proven.lowered is not None:
                found = msgspec.structs.replace(found, deviation=equal(proven.lowered, folder, oracle, precision, terms))
            found = msgspec.structs.replace(found, proofs=(*found.proofs, Proof(proven.rung, evidence)), placement=proven.placement or found.placement, build_s=dict(build_s))
            write(folder / FILE, msgspec.json.encode(found))
    except Refusal as refusal:
        found = msgspec.structs.replace(found, stopped=refusal.reason)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name != FILE)
    found = msgspec.structs.replace(found, build_s=dict(build_s), artefact_bytes=size)
    write(folder / FILE, msgspec.json.encode(found))
    return found


def equal(lowered: Any, folder: Path, oracle: Path, precision: str, terms: int) -> Deviation:
    """Raises Refusal(accuracy)."""
    import numpy as np

    from . import check
    from .tasks import named

    outputs: dict[str, Path] = {}
    for kind in ("random", "real"):
        with np.load(oracle / f"{kind}.npz", allow_pickle=False) as stored:
            given = named(stored, "in")
        results: list[Arrays] = [lowered(tuple(np.ascontiguousarray(value[at]) for value in given)) for at in range(len(given[0]))]
        outputs[kind] = folder / f"lowered-{kind}.npz"
        np.savez(outputs[kind], allow_pickle=False, **{f"out{at}": np.stack(parts) for at, parts in enumerate(zip(*results, strict=True))})
    deviation = Deviation(check.distances(oracle, outputs, precision, terms))
    for file in outputs.values():
        file.unlink()
    check.judge(deviation)
    return deviation
