"""Never comes back from loading."""

import time

from hotlap.perf.backends.eager import available, placement, supports, variables  # noqa: F401

SUMMARY, OPTIONS, PRELOAD = "planted defect", {}, ("numpy",)


def load(artefact):
    time.sleep(3600)
