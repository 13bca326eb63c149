"""Works in two threads, on any core, where it was given one of each."""

import os
import threading

import torch

from hotlap.perf.backends import eager
from hotlap.perf.backends.eager import available, placement, supports, variables  # noqa: F401
from hotlap.perf.terms.contract import Step

SUMMARY, OPTIONS, PRELOAD = "planted defect", {}, ("torch",)


def load(artefact):
    right, sides = eager.load(artefact), torch.zeros(256, 256)
    os.sched_setaffinity(0, range(os.cpu_count()))

    def beside(busy):
        while busy:
            sides @ sides

    def call(inputs):
        busy = [True]
        other = threading.Thread(target=beside, args=(busy,))
        other.start()
        outputs = right.call(inputs)
        busy.clear()
        other.join()
        return outputs

    return Step(call, right.place, right.fetch, right.synchronize, right.about)
