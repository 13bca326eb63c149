"""Reads what this machine's processor is and which instructions it has, as the kernel says."""

from __future__ import annotations

from pathlib import Path

# Instructions that multiply matrices of a precision (Intel 64 and IA-32 Architectures Software
# Developer's Manual, volume 1, chapters 15 to 18).
HALF_PRODUCTS = {"bf16": ("avx512_bf16", "amx_bf16"), "fp16": ("avx512_fp16", "amx_fp16")}
# Instructions that add 8-bit products in 32 bits (Intel 64 and IA-32 Architectures Software
# Developer's Manual, volume 2, VPDPBUSD and TDPBSSD).
INT8_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8")


def flags() -> frozenset[str]:
    """Returns the instruction sets of the first core, as /proc/cpuinfo names them (flags, on Arm
    Features); none where there is no such file.
    """
    values = cpuinfo()
    return frozenset(values.get("flags", values.get("Features", "")).split())


def cpuinfo() -> dict[str, str]:
    """Returns what /proc/cpuinfo says of the first core, by name; empty where there is no such
    file.
    """
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = [line.partition(":") for line in first.splitlines()]
    return {name.strip(): value.strip() for name, _, value in pairs}
