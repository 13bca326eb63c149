"""Runs out of space while it builds."""

import errno
import os

from hotlap.perf.backends.eager import available, load, placement, supports, variables  # noqa: F401

SUMMARY, OPTIONS, PRELOAD = "planted defect", {}, ("torch",)


def build(workload, case, folder, phase):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "model.bin"))
