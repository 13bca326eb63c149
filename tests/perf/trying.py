"""Refers, builds, loads and checks a workload in one process, as tests of models and files do."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hotlap.perf.lookup import plugins, workloads
from hotlap.perf.lookup.workloads import Reference, resized
from hotlap.perf.oracle import arrays, check, reference
from hotlap.perf.terms.case import Case
from hotlap.perf.terms.contract import Artefact
from hotlap.perf.terms.reasons import Refusal
from hotlap.perf.terms.result import Deviation

BACKENDS = ("onnxruntime", "openvino")


@dataclass
class Tried:
    """What came of one model: its inputs in words, the names of its inputs and outputs, and of each
    backend `ok` or the reason, with what its build noted.
    """

    notes: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    batch: int = 0
    kinds: tuple[str, ...] = ()
    answers: dict[str, str] = field(default_factory=dict)
    built: dict[str, list[str]] = field(default_factory=dict)


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    yield


def tried(
    source: Reference, folder: Path, backends: tuple[str, ...] = BACKENDS, precision: str = "fp32"
) -> Tried:
    """Refers, builds, loads and checks. Raises Refusal where the model itself is refused."""
    workload = workloads.load(source)
    batch = reference.own_batch(workload)
    oracle = folder / "oracle"
    oracle.mkdir()
    referral = reference.refer(workload, batch, [precision], "cpu", oracle, 2)
    source = source._replace(axis=referral.axis, returns=referral.returns)
    result = Tried(referral.notes, referral.subject.inputs, referral.subject.outputs, batch, referral.kinds)

    def loaded() -> Any:
        return resized(workloads.load(source), batch)

    for name in backends:
        backend: Any = plugins.backend(name)
        case, place = Case("tried", name, precision, batch), folder / name
        place.mkdir()
        try:
            backend.build(loaded(), case, place, phase)
            result.built[name] = json.loads((place / "build.json").read_text())
            artefact = Artefact(case, place, 2, loaded, None)
            step = backend.load(artefact)
            outputs = {kind: place / f"{kind}.npz" for kind in referral.kinds}
            for kind, path in outputs.items():
                arrays.on_stored(
                    lambda values, step=step: step.fetch(step.call(step.place(values))),
                    oracle / "inputs" / f"{kind}.npz",
                    path,
                )
            deviation = Deviation(
                check.distances(oracle, outputs, precision, referral.subject.work.terms, result.outputs)
            )
            check.judge(deviation, precision, False)
            placement = backend.placement(artefact, step)
            result.answers[name] = str(placement.wrong or "ok")
        except Refusal as refusal:
            result.answers[name] = str(refusal)
    return result
