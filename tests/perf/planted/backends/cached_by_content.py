"""Answers inputs that it has met before from memory, by what they hold."""

from hotlap.perf.backends import eager
from hotlap.perf.backends.eager import available, placement, supports, variables  # noqa: F401
from hotlap.perf.terms.contract import Step

SUMMARY, OPTIONS, PRELOAD = "planted defect", {}, ("torch",)


def load(artefact):
    right, known = eager.load(artefact), {}

    def call(inputs):
        key = hash(inputs[0].numpy().tobytes())
        if key not in known:
            known[key] = right.call(inputs)
        return known[key]

    return Step(call, right.place, right.fetch, right.synchronize, right.about)
