"""Reads the memory of this process by phase, from /proc (Linux): the peak since the last reset."""

from __future__ import annotations

import sys
from pathlib import Path

from . import telemetry

# Memory that ran out, as torch says it of CUDA (its allocator, then the driver) and of the CPU; the
# C++ library; NumPy; ONNX Runtime.
EXHAUSTED = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "can't allocate memory",
    "bad_alloc",
    "Unable to allocate",
    "Failed to allocate memory",
)


def peak_bytes() -> int:
    """Returns the highest resident set since the process began or since `reset`, B (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def exhausted(error: BaseException) -> bool:
    """Returns whether an exception of any library says that memory ran out (torch raises
    RuntimeError for the CPU, its own class for CUDA).
    """
    return isinstance(error, MemoryError) or any(words in str(error) for words in EXHAUSTED)


def reset() -> None:
    """Makes the peak start again from what is resident now (proc(5): writing 5 to clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def gpu_bytes(target: str, device: telemetry.Device | None = None) -> dict[str, int]:
    """Returns what is known of a CUDA device's memory, B by source; empty for other targets.

    torch_peak: torch's peak, if torch is in this process. nvml_process: this process's memory by
    NVML's lists. nvml_device_delta instead, where those do not tell it: growth of the whole
    device's used memory since `device` was opened. Raises Refusal(crashed) where the device is
    lost.
    """
    if not target.startswith("cuda:"):
        return {}
    by_source = {}
    if "torch" in sys.modules:
        import torch  # costs nothing here; this module is also of processes without torch

        by_source["torch_peak"] = torch.cuda.max_memory_allocated(int(target.partition(":")[2]))
    if device is not None and (state := device.read()).process_bytes is not None:
        source = "nvml_process" if state.process_source == telemetry.LISTS else "nvml_device_delta"
        by_source[source] = state.process_bytes
    return by_source
