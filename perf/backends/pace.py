"""A small fixed piece of work (a matrix product, a copy, a Python loop) that runs in every race.

Results of different jobs or machines are compared as ratios to it. It never changes; if it must,
its name changes too.
"""

from __future__ import annotations

from typing import Any

from ..terms.case import Case
from ..terms.contract import Arrays, Artefact, Step
from ..terms.reasons import Reason
from ..terms.result import Placement

SUMMARY = "fixed work that every race is measured against"
OPTIONS: dict[str, tuple[str, ...]] = {}
TAKES_FILES = True
PRELOAD = ("numpy",)
# It runs no workload: its outputs are not checked, and it has a latency and nothing else.
OWN_WORK = True

# Of the matrix that is multiplied by itself: 147 kB, so that it stays in a core's cache.
SIDE = 192
# What is copied: more than most cores' own caches hold.
COPY_BYTES = 4 * 2**20
# Steps of the Python loop.
LOOP = 10_000


def available(target: str) -> Reason | None:
    """Returns None: it runs on the CPU beside every target."""
    return None


def supports(case: Case) -> Reason | None:
    """Returns None: it runs the same work whatever the case is."""
    return None


def variables(case: Case, threads: int) -> dict[str, str]:
    """Returns one thread, whatever the race has.

    With two, a neighbour on the other core made it 15 times slower (seen).
    """
    return {"OPENBLAS_NUM_THREADS": "1"}


def load(artefact: Artefact) -> Step:
    """Returns a step that does the work, whatever its inputs are."""
    import numpy as np

    matrix = np.random.default_rng(0).standard_normal((SIDE, SIDE), dtype=np.float32)
    source, sink = np.zeros(COPY_BYTES, dtype=np.uint8), np.empty(COPY_BYTES, dtype=np.uint8)

    def call(inputs: Any) -> float:
        product = matrix @ matrix
        np.copyto(sink, source)
        total = 0
        for value in range(LOOP):
            total += value
        return float(product[0, 0]) + total

    return Step(call=call, place=lambda arrays: None, fetch=fetch)


def fetch(outputs: float) -> Arrays:
    """Returns the number that the work comes to."""
    import numpy as np

    return (np.array([outputs]),)


def placement(artefact: Artefact, step: Step) -> Placement:
    """Returns that all of it ran on the CPU."""
    return Placement(requested="cpu", ran_on={"cpu": 1})
