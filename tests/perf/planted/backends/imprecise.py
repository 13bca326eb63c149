"""Asked for fp32, computes in bf16."""

from dataclasses import replace

from hotlap.perf.backends import eager
from hotlap.perf.backends.eager import available, placement, supports, variables  # noqa: F401

SUMMARY, OPTIONS, PRELOAD = "planted defect", {}, ("torch",)


def load(artefact):
    return eager.load(replace(artefact, case=replace(artefact.case, precision="bf16")))
