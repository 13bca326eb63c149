"""Builds a file and loads the module itself: it says nothing of that, so only its first load shows
it.
"""

from hotlap.perf.backends.eager import available, load, placement, supports, variables  # noqa: F401

SUMMARY, OPTIONS, PRELOAD = "planted need of the source", {}, ("torch",)


def build(workload, case, folder, phase):
    (folder / "model.bin").write_bytes(b"model")
