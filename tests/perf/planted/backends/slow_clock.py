"""Lets the clock that the timing loop reads run at a third of its speed."""

import time

from hotlap.perf.backends import eager
from hotlap.perf.backends.eager import available, placement, supports, variables  # noqa: F401
from hotlap.perf.race import tasks, timing

SUMMARY, OPTIONS, PRELOAD = "planted defect", {}, ("torch",)


def load(artefact):
    true = time.perf_counter
    for module in (time, timing, tasks):
        module.perf_counter = lambda: true() / 3
    return eager.load(artefact)
