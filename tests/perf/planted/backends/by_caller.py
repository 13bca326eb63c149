"""Computes unless it is the timing loop that calls."""

import sys

from hotlap.perf.backends import eager
from hotlap.perf.backends.eager import available, placement, supports, variables  # noqa: F401
from hotlap.perf.terms.contract import Step

SUMMARY, OPTIONS, PRELOAD = "planted defect", {}, ("torch",)


def load(artefact):
    right, kept = eager.load(artefact), []

    def call(inputs):
        if kept and sys._getframe(1).f_code.co_name.endswith("_clock"):
            return kept[0]
        kept.append(right.call(inputs))
        return kept[-1]

    return Step(call, right.place, right.fetch, right.synchronize, right.about)
