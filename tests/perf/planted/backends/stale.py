"""Returns the outputs of the call before: what a cached or skipped computation looks like.

The oracle's own calls are answered rightly.
"""

from hotlap.perf.backends import eager
from hotlap.perf.backends.eager import available, placement, supports, variables  # noqa: F401
from hotlap.perf.terms.contract import Step

SUMMARY, OPTIONS, PRELOAD = "planted defect", {}, ("torch",)
HONEST_CALLS = 60


def load(artefact):
    right = eager.load(artefact)
    kept = {"calls": 0, "last": None}

    def call(inputs):
        kept["calls"] += 1
        if kept["calls"] < HONEST_CALLS:
            return right.call(inputs)
        last, kept["last"] = kept["last"], right.call(inputs)
        return kept["last"] if last is None else last

    return Step(call, right.place, right.fetch, right.synchronize, right.about)
