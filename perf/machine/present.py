"""What this machine has, looked up without importing anything heavy: packages, NVIDIA devices, CPU
features, CPUs to bind threads to.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
from pathlib import Path

from ..terms.case import Case
from ..terms.reasons import Reason, Refusal
from . import cuda_devices

# What is taken where nobody names a target, if it is here.
FIRST_GPU = "cuda:0"


def missing(package: str, remedy: str) -> Reason | None:
    """Returns the reason, with the remedy, if the package is not installed."""
    if importlib.util.find_spec(package) is None:
        return Reason("dep_missing", f"the package {package} is not installed: {remedy}")
    return None


def no_device(target: str) -> Reason | None:
    """Returns the reason if the target is no device of this machine; None for the CPU and for a
    CUDA device that the driver shows to this process.

    A named architecture is no device: a case can be proven for it, never run.
    """
    if target == "cpu":
        return None
    if not target.startswith("cuda:"):
        return Reason(
            "no_device", f"{target} is an architecture, not a device of this machine: nothing runs there"
        )
    try:
        cuda_devices.open_device(target)
    except Refusal as refusal:
        return refusal.reason
    return None


def automatic_target() -> tuple[str, str]:
    """Returns the target where nobody names one, the first GPU that torch can use or else the CPU,
    and a line that says which.
    """
    try:
        cuda_devices.driver()
    except Refusal:
        return "cpu", "no GPU here: target cpu"
    try:
        device = cuda_devices.open_device(FIRST_GPU)
    except Refusal as refused:
        return "cpu", f"no GPU for this process: target cpu ({refused.reason.detail})"
    if not torch_has_cuda():
        return "cpu", f"target cpu: the torch that is installed is built without CUDA, for {device.name}"
    return FIRST_GPU, f"target {FIRST_GPU}, {device.name}"


def torch_has_cuda() -> bool:
    """Whether the installed torch is built for CUDA, by its file of versions: importing torch would
    take seconds and threads.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return False
    return bool(runpy.run_path(str(Path(spec.submodule_search_locations[0]) / "version.py"))["cuda"])


def cpus_to_bind(case: Case, threads: int) -> tuple[int, ...]:
    """Returns the CPU for each thread: one a core first, then the cores' second hardware threads.

    None at all, which means to bind nothing: with option binding:none, off the CPU, or if this
    process may use fewer CPUs than there are threads.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if case.option("binding", "cores") == "none" or case.target != "cpu" or threads > len(allowed):
        return ()
    return tuple(sorted(allowed, key=lambda cpu: (_sibling(cpu), cpu))[:threads])


def _sibling(cpu: int) -> int:
    """Returns 0 for the first hardware thread of its core, 1 for the second, by Linux's sysfs
    (files like `0-1` or `0,4`).
    """
    file = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    if not file.is_file():
        return 0
    ranges = (part.split("-") for part in file.read_text().strip().split(","))
    return sum(min(cpu, int(part[-1]) + 1) - min(cpu, int(part[0])) for part in ranges)
