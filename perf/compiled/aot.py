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
    """Of one multiprocessor.

    part: the datasheet that its roofline comes from (peaks.py). Limits: CUDA C++ Programming Guide,
    table of compute capabilities; AMD CDNA 3 ISA.
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
REGISTERS, REGISTER_UNIT = 65536, 256
VECTOR_REGISTERS, VECTOR_UNIT, WAVES = 512, 8, 8
PRODUCT = re.compile(r"\btt\.dot(?:_scaled)?\b.*?: tensor<(?:\d+x)+(\w+)")
TENSOR = re.compile(r"^(?:[HIDQ]MMA|[HIQ]GMMA|UTC\w*MMA)|^v_s?mfma")
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*(?:\.\w+)*)")
AMD_INSTRUCTION = re.compile(r"^\s+([a-z]\w+)", re.MULTILINE)
BITS = {"x4": 128, "x3": 96, "x2": 64, "": 32}


class Figures(msgspec.Struct, frozen=True):
    """sass: instructions by class.

    load_128 .. load_8 and store_*: global memory by width in bits; tensor_core; local_load,
    local_store: what is spilled; shared; async_copy; other.
    """

    registers: int
    spill_loads: int
    spill_stores: int
    stack_bytes: int
    shared_bytes: int
    occupancy: float
    instructions: int
    sass: dict[str, int]


def compiled(
    kernel: Any,
    signature: dict[str, str],
    constexprs: dict[str, Any],
    divisible: tuple[str, ...],
    warps: int,
    stages: int,
    target: str,
) -> Figures:
    """Raises what the compiler raises."""
    return read(made(kernel, signature, constexprs, divisible, warps, stages, target), target)


def made(
    kernel: Any,
    signature: dict[str, str],
    constexprs: dict[str, Any],
    divisible: tuple[str, ...],
    warps: int,
    stages: int,
    target: str,
) -> Any:
    """Triton's own object of a compiled kernel. Raises what the compiler raises."""
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
    return triton.compile(source, target=goal, options={"num_warps": warps, "num_stages": stages})


def read(kernel: Any, target: str) -> Figures:
    """What the machine code of a compiled kernel says."""
    warps, shared = kernel.metadata.num_warps, kernel.metadata.shared
    return (
        of_amd(kernel.asm["amdgcn"], warps, shared)
        if target.startswith("gfx")
        else of_cubin(kernel.asm["cubin"], warps, shared, target)
    )


def multiplies(kernel: Any) -> bool:
    """Whether a compiled kernel has a product of matrices that tensor cores are for: of elements
    narrower than fp32.
    """
    return bool(set(PRODUCT.findall(kernel.asm["ttir"])) - {"f32", "f64"})


def why(error: Exception) -> str:
    """One line of what the compiler raised: where in the kernel, and what, without the source
    between the two.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    place = f"{lines[0].rstrip(':')}: " if len(lines) > 1 and lines[0].startswith("at ") else ""
    told = lines[-1] if place else " ".join(lines)
    cause = f" ({error.__cause__})" if place and error.__cause__ is not None and set(told) <= {"^"} else ""
    return f"{type(error).__name__}: {place}{told}{cause}"[:300]


def of_cubin(content: bytes, warps: int, shared: int, target: str) -> Figures:
    import triton.backends.nvidia as nvidia

    tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(content)
        file.flush()
        usage, code = (
            subprocess.run([tool, option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("--dump-resource-usage", "-sass")
        )
    (found,) = re.findall(r"REG:(\d+) STACK:(\d+)", usage)
    registers, stack = (int(number) for number in found)
    sass = Counter(of_nvidia(name) for name in INSTRUCTION.findall(code))
    return figures(registers, stack, shared, sass, occupancy(registers, warps, shared, LIMITS[target]))


def of_nvidia(name: str) -> str:
    """The class of an instruction such as LDG.E.128.SYS."""
    base, *rest = name.split(".")
    if base in ("LDG", "STG"):
        bits = next(
            (
                int(part.lstrip("US"))
                for part in rest
                if part.lstrip("US").isdigit() and part.lstrip("US") in ("8", "16", "64", "128", "256")
            ),
            32,
        )
        return f"{'load' if base == 'LDG' else 'store'}_{bits}"
    if TENSOR.match(base):
        return "tensor_core"
    if base in ("LDL", "STL"):
        return "local_load" if base == "LDL" else "local_store"
    return (
        "shared"
        if base in ("LDS", "STS", "LDSM", "STSM")
        else "async_copy"
        if base in ("LDGSTS", "UTMALDG", "UTMASTG", "UBLKCP")
        else "other"
    )


def of_amd(assembly: str, warps: int, shared: int) -> Figures:
    said = {
        name: int(value)
        for name, value in re.findall(
            r"\.(vgpr_count|vgpr_spill_count|sgpr_spill_count|private_segment_fixed_size|agpr_count):\s+(\d+)",
            assembly,
        )
    }
    body = assembly.partition(".section\t.rodata")[0]
    sass = Counter(of_gfx(name) for name in AMD_INSTRUCTION.findall(body))
    registers = said["vgpr_count"]
    waves = min(WAVES, VECTOR_REGISTERS // max(VECTOR_UNIT, -(-registers // VECTOR_UNIT) * VECTOR_UNIT))
    by_shared = ARCHITECTURES["gfx942"].shared_bytes // shared * warps // 4 if shared else WAVES
    return figures(registers, said["private_segment_fixed_size"], shared, sass, min(waves, by_shared) / WAVES)


def of_gfx(name: str) -> str:
    if access := re.match(r"(?:global|buffer|flat)_(load|store)_(?:dword(x\d)?|[us]?(byte|short))", name):
        bits = {"byte": 8, "short": 16}.get(access[3] or "") or BITS[access[2] or ""]
        return f"{access[1]}_{bits}"
    if TENSOR.match(name):
        return "tensor_core"
    if scratch := re.match(r"scratch_(load|store)", name):
        return f"local_{scratch[1]}"
    return "shared" if name.startswith("ds_") else "other"


def figures(registers: int, stack: int, shared: int, sass: Counter[str], occupied: float) -> Figures:
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
    """Share of a multiprocessor's warps in use (CUDA C++ Best Practices Guide, occupancy)."""
    each = max(REGISTER_UNIT, -(-32 * registers // REGISTER_UNIT) * REGISTER_UNIT)
    by_registers = REGISTERS // each // 4 * 4 // warps
    by_shared = (
        limits.shared_bytes // (-(-(shared + limits.reserved_bytes) // 128) * 128)
        if shared + limits.reserved_bytes
        else limits.blocks
    )
    return min(limits.blocks, limits.warps // warps, by_registers, by_shared) * warps / limits.warps
