"""Answers inputs that it has met before from memory, by which object they are."""

from hotlap.perf.backends import eager
from hotlap.perf.backends.eager import available, placement, supports, variables  # noqa: F401
from hotlap.perf.terms.contract import Step

SUMMARY, OPTIONS, PRELOAD = "planted defect", {}, ("torch",)


def load(artefact):
    right, known = eager.load(artefact), {}

    def call(inputs):
        if id(inputs) not in known:
            known[id(inputs)] = right.call(inputs)
        return known[id(inputs)]

    return Step(call, right.place, right.fetch, right.synchronize, right.about)
