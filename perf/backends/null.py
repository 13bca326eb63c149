"""Computes nothing and takes a time that is known: what the harness measures of it must be that
time.

Its outputs are the reference's own (files of reference.py): `place` finds the inputs there by
equality, a whole batch or, for the validation split, row by row; `call` gives the stored outputs
when the time is over.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from ..terms.case import Case
from ..terms.contract import Arrays, Artefact, Step
from ..terms.reasons import Reason, Refusal
from ..terms.result import Placement

SUMMARY = "takes a stated time and returns the stored reference outputs: tests the harness"
OPTIONS = {"takes": ("5ms", "0.2ms", "1ms", "20ms")}
TAKES_FILES = True
PRELOAD = ("numpy",)
KNOWS_REFERENCE = True

# A sleep on Linux returns late by the timer slack (50 us, prctl(2)) and the wake-up; the rest of
# the time is spent spinning.
SPIN_S = 0.0005


def available(target: str) -> Reason | None:
    """Returns a reason for every target but the CPU."""
    if target == "cpu":
        return None
    return Reason("unsupported_target", f"null waits on the CPU, not on {target}")


def supports(case: Case) -> Reason | None:
    """Returns a reason for every mode but inference."""
    if case.mode == "inference":
        return None
    return Reason("unsupported_op", "null has outputs for mode inference only")


def variables(case: Case, threads: int) -> dict[str, str]:
    """Returns none: it has one thread."""
    return {}


def load(artefact: Artefact) -> Step:
    """Returns a step that takes its time and knows its outputs.

    Its `place` raises Refusal(invalid_input) for inputs whose outputs are not known.
    """
    takes_s = float(artefact.case.option("takes", OPTIONS["takes"][0]).removesuffix("ms")) / 1000
    assert artefact.reference is not None
    batches = _known(artefact.reference, ("real", "random", "timed", "fresh"))
    rows = _known(artefact.reference, ("validation",))

    def place(arrays: Arrays) -> Arrays:
        import numpy as np

        if (whole := batches.get(_digest(arrays))) is not None:
            return whole
        answers = [rows.get(_digest(row)) for row in zip(*arrays, strict=True)]
        if not answers or None in answers:
            shapes = ", ".join(f"{array.dtype}{list(array.shape)}" for array in arrays)
            raise Refusal(
                "invalid_input",
                f"null knows the outputs of {len(batches)} batches, not of the one it was given ({shapes})",
            )
        known = [answer for answer in answers if answer is not None]
        return tuple(np.stack(parts) for parts in zip(*known, strict=True))

    def call(outputs: Arrays) -> Arrays:
        deadline = time.perf_counter() + takes_s
        if takes_s > SPIN_S:
            time.sleep(takes_s - SPIN_S)
        while time.perf_counter() < deadline:
            pass
        return outputs

    return Step(call, place, lambda outputs: outputs)


def placement(artefact: Artefact, step: Step) -> Placement:
    """Returns that nothing was computed."""
    return Placement("cpu", {"cpu": 0}, {}, ("null computes nothing",))


def _known(folder: Path, names: tuple[str, ...]) -> dict[bytes, Arrays]:
    """Returns the reference outputs by the digest of their inputs.

    There is one for each entry along the first dimension of the files that exist.
    """
    import numpy as np

    known: dict[bytes, Arrays] = {}
    for name in names:
        answers = folder / (f"{name}-reference.npz" if name == "validation" else f"{name}.npz")
        if not answers.is_file():
            continue
        with (
            np.load(folder / f"{name}.npz", allow_pickle=False) as questions,
            np.load(answers, allow_pickle=False) as stored,
        ):
            inputs = [questions[key] for key in sorted(questions.files, key=_number) if key.startswith("in")]
            outputs = [
                stored[key] for key in sorted(stored.files, key=_number) if key.startswith(("ref", "out"))
            ]
        for question, answer in zip(zip(*inputs, strict=True), zip(*outputs, strict=True), strict=True):
            known[_digest(question)] = answer
    return known


def _number(key: str) -> int:
    """Returns the number at the end of a key such as in0, ref12 or eager-fp32-0."""
    return int(key[len(key.rstrip("0123456789")) :])


def _digest(arrays: Arrays) -> bytes:
    """Returns a hash of the arrays with their dtypes and shapes."""
    digest = hashlib.blake2b()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.digest()
