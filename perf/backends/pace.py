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
PRELOAD = ("numpy",)
# It runs no workload: its outputs are not checked, and it has a latency and nothing else.
OWN_WORK = True

SIDE, COPY_BYTES, LOOP = 192, 4 * 2**20, 10_000


def available(target: str) -> Reason | None:
    return None


def supports(case: Case) -> Reason | None:
    return None


def variables(case: Case, threads: int) -> dict[str, str]:
    """One thread, whatever the race has: with two, a neighbour on the other core made it 15 times
    slower (seen).
    """
    return {"OPENBLAS_NUM_THREADS": "1"}


def load(artefact: Artefact) -> Step:
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
    import numpy as np

    return (np.array([outputs]),)


def placement(artefact: Artefact, step: Step) -> Placement:
    return Placement(requested="cpu", ran_on={"cpu": 1})
