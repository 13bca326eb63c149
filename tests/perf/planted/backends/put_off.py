"""Does the work when the outputs are fetched, after the clock has stopped."""

from hotlap.perf.backends import eager
from hotlap.perf.backends.eager import available, supports, variables  # noqa: F401
from hotlap.perf.terms.contract import Step

SUMMARY, OPTIONS, PRELOAD = "planted defect", {}, ("torch",)


def load(artefact):
    right = eager.load(artefact)
    return Step(
        lambda inputs: inputs, right.place, lambda inputs: right.fetch(right.call(inputs)), about=right.about
    )


def placement(artefact, step):
    return eager.placement(artefact, eager.load(artefact))
