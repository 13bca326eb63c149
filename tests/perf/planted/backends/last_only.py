"""Computes only in what should be the last call of a turn, from the lengths of turns before."""

from hotlap.perf.backends import eager
from hotlap.perf.backends.eager import available, placement, supports, variables  # noqa: F401
from hotlap.perf.terms.contract import Step

SUMMARY, OPTIONS, PRELOAD = "planted defect", {}, ("torch",)

HONEST_CALLS = 60


def load(artefact):
    right, kept = eager.load(artefact), {"calls": 0, "since": 0, "length": 0, "outputs": None}

    def call(inputs):
        kept["calls"] += 1
        kept["since"] += 1
        if kept["calls"] < HONEST_CALLS or kept["since"] >= kept["length"] - 1 or kept["outputs"] is None:
            kept["outputs"] = right.call(inputs)
        return kept["outputs"]

    def fetch(outputs):
        kept["length"], kept["since"] = kept["since"], 0
        return right.fetch(outputs)

    return Step(call, right.place, fetch, right.synchronize, right.about)
