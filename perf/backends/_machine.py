"""What this machine has, looked up without importing anything heavy: packages, NVIDIA devices, CPU
features, CPUs to bind threads to.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from .. import cuda_devices
from ..case import Case
from ..environment import HALF_PRODUCTS
from ..environment import cpu_flags as cpu_flags
from ..reasons import Reason, Refusal

# Instructions that add 8-bit products in 32 bits (Intel 64 and IA-32 Architectures Software
# Developer's Manual, volume 2, VPDPBUSD and TDPBSSD).
INT8_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8")
# Products of 8 and 16 bits that oneDNN still uses when ONEDNN_MAX_CPU_ISA names one of these; a
# higher one forbids none of them (oneDNN's developer guide, "CPU Dispatcher Control").
ONEDNN_PRODUCTS: dict[str, tuple[str, ...]] = {
    "SSE41": (),
    "AVX": (),
    "AVX2": (),
    "AVX2_VNNI": ("avx_vnni",),
    "AVX512_CORE": (),
    "AVX512_CORE_VNNI": ("avx512_vnni",),
    "AVX512_CORE_BF16": ("avx512_vnni", "avx512_bf16"),
}


def missing(package: str, remedy: str) -> Reason | None:
    if importlib.util.find_spec(package) is None:
        return Reason("dep_missing", f"the package {package} is not installed: {remedy}")
    return None


def onednn_products() -> frozenset[str]:
    """The instructions for products of 8 and 16 bits that this CPU has and oneDNN may use, which
    OpenVINO has built in.
    """
    there = cpu_flags() & {*INT8_PRODUCTS, *(flag for flags in HALF_PRODUCTS.values() for flag in flags)}
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    return there & frozenset(ONEDNN_PRODUCTS.get(limit, there))


def eight_bit_products() -> list[str]:
    """The instructions with which oneDNN adds 8-bit products in 32 bits on this CPU. Without them
    it adds pairs of products in 16 bits, which saturate, so one factor must have 7 bits (oneDNN's
    developer guide, "Nuances of int8 Computations").
    """
    return [flag for flag in INT8_PRODUCTS if flag in onednn_products()]


def no_device(target: str) -> Reason | None:
    """None for the CPU and for a CUDA device that the driver shows to this process.

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


def places(case: Case, threads: int) -> tuple[int, ...]:
    """The CPU for each thread: one a core first, then the cores' second hardware threads.

    Empty: do not bind.

    Nothing is bound with option binding:none, off the CPU, or if this process may use fewer CPUs
    than there are threads.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if case.option("binding", "cores") == "none" or case.target != "cpu" or threads > len(allowed):
        return ()
    return tuple(sorted(allowed, key=lambda cpu: (_sibling(cpu), cpu))[:threads])


def _sibling(cpu: int) -> int:
    """0 for the first hardware thread of its core, 1 for the second, by Linux's sysfs (files like
    `0-1` or `0,4`).
    """
    file = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    if not file.is_file():
        return 0
    ranges = (part.split("-") for part in file.read_text().strip().split(","))
    return sum(min(cpu, int(part[-1]) + 1) - min(cpu, int(part[0])) for part in ranges)
