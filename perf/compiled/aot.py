"""A Triton kernel compiled for a named architecture with no driver, and what the machine code says
of itself: registers, spills, shared memory, instructions.

NVIDIA: cubin by Triton's own ptxas, read with the cuobjdump beside it. AMD: the assembly's
metadata. No figure here is a time.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec


class Architecture(NamedTuple):
    """Limits of one multiprocessor, and the part whose datasheet its roofline is from (peaks.py).

    Limits by the CUDA C++ Programming Guide, table of compute capabilities; AMD CDNA 3 ISA.
    shared_bytes: in all. reserved_bytes: what the driver takes of it for each block.
    """

    part: str
    warps: int
    blocks: int
    shared_bytes: int
    reserved_bytes: int = 1024


ARCHITECTURES = {
    "sm_75": Architecture("Tesla T4", 32, 16, 65536, 0),
    "sm_80": Architecture("NVIDIA A100-SXM4-80GB", 64, 32, 167936),
    "sm_89": Architecture("NVIDIA GeForce RTX 4090", 48, 24, 102400),
    "sm_90": Architecture("NVIDIA H100 80GB HBM3", 64, 32, 233472),
    "sm_100": Architecture("NVIDIA B200", 64, 32, 233472),
    "sm_120": Architecture("NVIDIA GeForce RTX 5090", 48, 24, 102400),
    "gfx942": Architecture("AMD Instinct MI300X", 32, 32, 65536, 0),
}
# Limits of what kernels of ours are not built for, but Inductor's may be.
LIMITS = {**ARCHITECTURES, "sm_86": Architecture("NVIDIA A10", 48, 16, 102400)}
# 32-bit registers of an NVIDIA multiprocessor, and how many a warp takes at a time (CUDA C++
# Programming Guide, technical specifications; CUDA Occupancy Calculator).
REGISTERS = 65536
REGISTER_UNIT = 256
# Vector registers of a lane of an AMD SIMD, how many a wave takes at a time, and waves a SIMD holds
# (AMD CDNA 3 ISA).
VECTOR_REGISTERS = 512
VECTOR_UNIT = 8
WAVES = 8
# A product in Triton's intermediate code, with the type of its first factor.
PRODUCT = re.compile(r"\btt\.dot(?:_scaled)?\b.*?: tensor<(?:\d+x)+(\w+)")
# Instructions of tensor cores: NVIDIA's by SASS (CUDA Binary Utilities), AMD's matrix cores.
TENSOR = re.compile(r"^(?:[HIDQ]MMA|[HIQ]GMMA|UTC\w*MMA)|^v_s?mfma")
# One instruction in cuobjdump's listing, and one in AMD's assembly.
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*(?:\.\w+)*)")
AMD_INSTRUCTION = re.compile(r"^\s+([a-z]\w+)", re.MULTILINE)
# AMD's suffix of a load or store of several 32-bit words -> its width in bits.
BITS = {"x4": 128, "x3": 96, "x2": 64, "": 32}


class Figures(msgspec.Struct, frozen=True):
    """What the machine code of a kernel says of itself."""

    # Registers of a thread.
    registers: int
    # Instructions that load spilled registers from local memory.
    spill_loads: int
    # Instructions that store them there.
    spill_stores: int
    # Local memory of a thread.
    stack_bytes: int
    # Shared memory of a block.
    shared_bytes: int
    # Share of a multiprocessor's warps that fit, 0 to 1.
    occupancy: float
    # All instructions of the code.
    instructions: int
    # Instructions by class: load_128 .. load_8 and store_* (global memory by width in bits),
    # tensor_core, local_load and local_store (what is spilled), shared, async_copy, other.
    sass: dict[str, int]


def compiled(
    kernel: Any,
    signature: dict[str, str],
    constexprs: dict[str, Any],
    divisible: tuple[str, ...],
    warps: int,
    stages: int,
    target: str,
    fused: bool = True,
) -> Figures:
    """Compiles a kernel and returns its figures. Raises what the compiler raises."""
    return read(
        compile_kernel(kernel, signature, constexprs, divisible, warps, stages, target, fused), target
    )


def compile_kernel(
    kernel: Any,
    signature: dict[str, str],
    constexprs: dict[str, Any],
    divisible: tuple[str, ...],
    warps: int,
    stages: int,
    target: str,
    fused: bool = True,
) -> Any:
    """Returns Triton's own object of a compiled kernel. Raises what the compiler raises.

    divisible: arguments that are multiples of 16. warps: of 32 threads, halved for AMD's of 64.
    fused: whether a product and a sum may become one instruction.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = list(signature)
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs=constexprs,
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in divisible},
    )
    amd = target.startswith("gfx")
    goal = GPUTarget("hip", target, 64) if amd else GPUTarget("cuda", int(target[3:]), 32)
    warps = max(1, warps // 2) if amd else warps  # of 64 threads instead of 32
    # Triton's default until 3.9, which warns where nothing is said: 3.10 will not fuse.
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": fused}
    return triton.compile(source, target=goal, options=options)


def read(kernel: Any, target: str) -> Figures:
    """Returns the figures of a compiled kernel, from its machine code."""
    warps, shared = kernel.metadata.num_warps, kernel.metadata.shared
    return (
        of_amd(kernel.asm["amdgcn"], warps, shared)
        if target.startswith("gfx")
        else of_cubin(kernel.asm["cubin"], warps, shared, target)
    )


def multiplies(kernel: Any) -> bool:
    """Returns whether a compiled kernel has a product of matrices that tensor cores are for.

    That is one of elements narrower than fp32.
    """
    return bool(set(PRODUCT.findall(kernel.asm["ttir"])) - {"f32", "f64"})


def why(error: Exception) -> str:
    """Returns one line of what the compiler raised: where in the kernel, and what.

    The source that the compiler prints between the two is left out.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    place = f"{lines[0].rstrip(':')}: " if len(lines) > 1 and lines[0].startswith("at ") else ""
    message = lines[-1] if place else " ".join(lines)
    cause = f" ({error.__cause__})" if place and error.__cause__ is not None and set(message) <= {"^"} else ""
    return f"{type(error).__name__}: {place}{message}{cause}"[:300]


def of_cubin(content: bytes, warps: int, shared: int, target: str) -> Figures:
    """Returns the figures of an NVIDIA kernel, read with the cuobjdump that Triton ships."""
    from triton.backends import nvidia

    tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(content)
        file.flush()
        usage, code = (
            subprocess.run([tool, option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("--dump-resource-usage", "-sass")
        )
    (numbers,) = re.findall(r"REG:(\d+) STACK:(\d+)", usage)
    registers, stack = (int(number) for number in numbers)
    sass = Counter(of_nvidia(name) for name in INSTRUCTION.findall(code))
    return figures(registers, stack, shared, sass, occupancy(registers, warps, shared, LIMITS[target]))


def of_nvidia(name: str) -> str:
    """Returns the class of an instruction such as LDG.E.128.SYS."""
    base, *rest = name.split(".")
    if base in ("LDG", "STG"):
        widths = (part.lstrip("US") for part in rest)  # U8 and S16 as well as 128
        bits = next((width for width in widths if width in ("8", "16", "64", "128", "256")), "32")
        return f"{'load' if base == 'LDG' else 'store'}_{bits}"
    if TENSOR.match(base):
        return "tensor_core"
    if base in ("LDL", "STL"):
        return "local_load" if base == "LDL" else "local_store"
    if base in ("LDS", "STS", "LDSM", "STSM"):
        return "shared"
    return "async_copy" if base in ("LDGSTS", "UTMALDG", "UTMASTG", "UBLKCP") else "other"


def of_amd(assembly: str, warps: int, shared: int) -> Figures:
    """Returns the figures of an AMD kernel, from the metadata of its assembly."""
    metadata = {
        name: int(value)
        for name, value in re.findall(
            r"\.(vgpr_count|vgpr_spill_count|sgpr_spill_count|private_segment_fixed_size|agpr_count):\s+(\d+)",
            assembly,
        )
    }
    body = assembly.partition(".section\t.rodata")[0]
    sass = Counter(of_gfx(name) for name in AMD_INSTRUCTION.findall(body))
    registers = metadata["vgpr_count"]
    waves = min(WAVES, VECTOR_REGISTERS // max(VECTOR_UNIT, -(-registers // VECTOR_UNIT) * VECTOR_UNIT))
    by_shared = ARCHITECTURES["gfx942"].shared_bytes // shared * warps // 4 if shared else WAVES
    stack = metadata["private_segment_fixed_size"]
    return figures(registers, stack, shared, sass, min(waves, by_shared) / WAVES)


def of_gfx(name: str) -> str:
    """Returns the class of an instruction such as global_load_dwordx4."""
    if access := re.match(r"(?:global|buffer|flat)_(load|store)_(?:dword(x\d)?|[us]?(byte|short))", name):
        bits = {"byte": 8, "short": 16}.get(access[3] or "") or BITS[access[2] or ""]
        return f"{access[1]}_{bits}"
    if TENSOR.match(name):
        return "tensor_core"
    if scratch := re.match(r"scratch_(load|store)", name):
        return f"local_{scratch[1]}"
    return "shared" if name.startswith("ds_") else "other"


def figures(registers: int, stack: int, shared: int, sass: Counter[str], occupied: float) -> Figures:
    """Returns figures of which those about spills and instructions follow from the classes."""
    return Figures(
        registers,
        sass["local_load"],
        sass["local_store"],
        stack,
        shared,
        round(occupied, 3),
        sum(sass.values()),
        dict(sorted(sass.items())),
    )


def occupancy(registers: int, warps: int, shared: int, limits: Architecture) -> float:
    """Returns the share of a multiprocessor's warps that fit, 0 to 1 (CUDA C++ Best Practices
    Guide, Occupancy).
    """
    each = max(REGISTER_UNIT, -(-32 * registers // REGISTER_UNIT) * REGISTER_UNIT)
    by_registers = REGISTERS // each // 4 * 4 // warps
    block_bytes = -(-(shared + limits.reserved_bytes) // 128) * 128  # in units of 128 bytes
    by_shared = limits.shared_bytes // block_bytes if block_bytes else limits.blocks
    return min(limits.blocks, limits.warps // warps, by_registers, by_shared) * warps / limits.warps
