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
# Instruction sets that a compiler uses of itself in code for a processor that has them, as
# /proc/cpuinfo names them (GCC's manual, "x86 Options" and "AArch64 Options"; Linux's
# arch/x86/include/asm/cpufeatures.h and "ARM64 ELF hwcaps"). Those of cryptography are not among
# them: they are in code by name only, and so are AMX's.
COMPILED = (
    *("pni", "ssse3", "sse4_1", "sse4_2", "popcnt", "cx16", "movbe", "abm", "bmi1", "bmi2", "tbm", "xop"),
    *("fma", "fma4", "f16c", "gfni", "avx", "avx2", "avx_vnni", "avx_vnni_int8", "avx_vnni_int16"),
    *("avx_ifma", "avx_ne_convert", "apx", "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"),
    *("avx512ifma", "avx512vbmi", "avx512_vbmi2", "avx512_vnni", "avx512_bitalg", "avx512_vpopcntdq"),
    *("avx512_bf16", "avx512_fp16"),
    *("asimd", "fphp", "asimdhp", "asimddp", "asimdrdm", "asimdfhm", "atomics", "fcma", "jscvt", "lrcpc"),
    *("ilrcpc", "i8mm", "bf16", "sve", "sve2", "svei8mm", "svebf16"),
)
# Instructions for products of tiles, used by name.
TILES = ("amx_tile", "amx_int8", "amx_bf16", "amx_fp16")


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


def native(tiles: bool) -> tuple[str, ...]:
    """Returns the instruction sets that code compiled for this CPU (-march=native) may hold.

    tiles: those of AMX too, which code must name.
    """
    there = flags()
    return tuple(name for name in (*COMPILED, *(TILES if tiles else ())) if name in there)


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
