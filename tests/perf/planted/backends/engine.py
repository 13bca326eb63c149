"""Proves itself for a named architecture and leaves an engine; no machine here can load it."""

from hotlap.perf.terms.contract import Proven
from hotlap.perf.terms.reasons import Reason

SUMMARY, OPTIONS, PRELOAD = "planted engine", {}, ("numpy",)


def available(target):
    return None if target == "cpu" else Reason("no_device", f"{target}: no NVIDIA driver answers here")


def supports(case):
    return None


def variables(case, threads):
    return {}


def build(workload, case, folder, phase):
    (folder / "model.engine").write_bytes(b"engine")


def verify(workload, case, folder, phase):
    yield Proven("L0", "configured")
    build(workload, case, folder, phase)
    yield Proven("L5", f"an engine of 6 bytes for {case.target}")


def load(artefact):
    raise AssertionError("there is no device")


def placement(artefact, step):
    raise AssertionError("there is no device")
