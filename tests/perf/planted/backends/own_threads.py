"""Works in two threads, on any core, where it was given one of each."""

import os
import threading

from hotlap.perf.backends import eager
from hotlap.perf.backends.eager import available, placement, supports, variables  # noqa: F401
from hotlap.perf.terms.contract import Step

SUMMARY, OPTIONS, PRELOAD = "planted defect", {}, ("torch",)


def load(artefact):
    right = eager.load(artefact)
    os.sched_setaffinity(0, range(os.cpu_count()))

    def call(inputs):
        other = threading.Thread(target=right.call, args=(inputs,))
        other.start()
        outputs = right.call(inputs)
        other.join()
        return outputs

    return Step(call, right.place, right.fetch, right.synchronize, right.about)
