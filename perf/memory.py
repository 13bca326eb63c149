"""Memory of this process by phase, from /proc (Linux): the peak since the last reset."""

from __future__ import annotations

from pathlib import Path


def peak_bytes() -> int:
    """VmHWM: the highest resident set since the process began or since `reset`, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def exhausted(error: BaseException) -> bool:
    """Whether an exception of any library says that memory ran out (torch raises RuntimeError for the CPU, its own class for CUDA)."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in ("CUDA out of memory", "can't allocate memory", "bad_alloc", "Unable to allocate"))


def reset() -> None:
    """Makes the peak start again from what is resident now (proc(5): writing 5 to clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def gpu_bytes(target: str) -> dict[str, int]:
    """For cuda:N: torch's peak, if torch is in this process, and the process's memory as NVML sees it; empty for other targets.

    NVML's figure is the larger, not the sum, of the compute and graphics lists; containers may hide process ids, then it is left out.
    """
    if not target.startswith("cuda:"):
        return {}
    import os
    import sys

    import pynvml

    found = {}
    index = int(target.partition(":")[2])
    if "torch" in sys.modules:
        import torch

        found["torch_peak"] = torch.cuda.max_memory_allocated(index)
    pynvml.nvmlInit()
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        lists = (pynvml.nvmlDeviceGetComputeRunningProcesses(handle), pynvml.nvmlDeviceGetGraphicsRunningProcesses(handle))
        mine = [int(entry.usedGpuMemory) for entries in lists for entry in entries if entry.pid == os.getpid() and entry.usedGpuMemory]
    finally:
        pynvml.nvmlShutdown()
    if mine:
        found["nvml_process"] = max(mine)
    return found
