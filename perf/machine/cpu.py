"""Reads what this machine's processor is and which instructions it has, as the kernel says."""

from __future__ import annotations

import os
from pathlib import Path

# Instructions that multiply matrices of a precision (Intel 64 and IA-32 Architectures Software
# Developer's Manual, volume 1, chapters 15 to 18).
HALF_PRODUCTS = {"bf16": ("avx512_bf16", "amx_bf16"), "fp16": ("avx512_fp16", "amx_fp16")}
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


def onednn_products() -> frozenset[str]:
    """Returns the instructions for products of 8 and 16 bits that this CPU has and oneDNN may use,
    which OpenVINO has built in.
    """
    there = flags() & {*INT8_PRODUCTS, *(flag for names in HALF_PRODUCTS.values() for flag in names)}
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    return there & frozenset(ONEDNN_PRODUCTS.get(limit, there))


def eight_bit_products() -> list[str]:
    """Returns the instructions with which oneDNN adds 8-bit products in 32 bits on this CPU.

    Without them it adds pairs of products in 16 bits, which saturate, so one factor must have 7
    bits (oneDNN's developer guide, "Nuances of int8 Computations").
    """
    return [flag for flag in INT8_PRODUCTS if flag in onednn_products()]
