"""Dies by SIGKILL in the middle of the timed run, as an out-of-memory kill would end it."""

import os
import signal

from hotlap.perf.backends import eager
from hotlap.perf.backends.eager import available, placement, supports, variables  # noqa: F401
from hotlap.perf.terms.contract import Step

SUMMARY, OPTIONS, PRELOAD = "planted defect", {}, ("torch",)
LAST_CALL = 2000


def load(artefact):
    right = eager.load(artefact)
    left = [LAST_CALL]

    def call(inputs):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return right.call(inputs)

    return Step(call, right.place, right.fetch, right.synchronize, right.about)
