"""Asks for more memory than there is."""

from hotlap.perf.backends.eager import available, placement, supports, variables  # noqa: F401

SUMMARY, OPTIONS, PRELOAD = "planted defect", {}, ("torch",)


def load(artefact):
    import torch

    return torch.empty(2**50)
