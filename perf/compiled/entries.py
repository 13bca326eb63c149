"""What is known of a compiled kernel."""

from __future__ import annotations

from typing import Any

import msgspec

from ..terms.stored import Count


class Entry(msgspec.Struct, frozen=True):
    """One kernel of one operation, dtype and target."""

    # `rms_norm/forward`, in a setting that is not the default `rms_norm/forward[columns:8192]`.
    op: str
    # fp32, fp16 or bf16; of a user's kernel the type of its first pointer.
    dtype: str
    # The architecture, such as sm_90.
    target: str
    # Its constexprs, warps and stages.
    config: dict[str, Any]
    # Registers of a thread.
    registers: Count
    # Instructions that load spilled registers from local memory.
    spill_loads: Count
    # Instructions that store them there.
    spill_stores: Count
    # Local memory of a thread.
    stack_bytes: Count
    # Shared memory of a block.
    shared_bytes: Count
    # Share of a multiprocessor's warps that fit, 0 to 1.
    occupancy: float
    # All instructions of the machine code.
    instructions: Count
    # Instructions by class (aot.Figures).
    sass: dict[str, Count]
    # Bytes that the typical size moves; None where nothing is known of it.
    bytes: Count | None
    # Its operations; None where nothing is known of it.
    flops: Count | None
    # Its least time by the datasheet, s; None for a part without one.
    roofline_s: float | None
    # The hard rules that it breaks, one line each (rules.py).
    violations: tuple[str, ...]
    # Kernels that Triton would compile over 40 sizes (variants.py); None where it was not asked.
    variants: Count | None = None

    @property
    def key(self) -> str:
        """Its name in a baseline."""
        return f"kernels/{self.op}/{self.dtype}/{self.target}"


class Failed(msgspec.Struct, frozen=True):
    """A kernel that the compiler refused."""

    op: str
    dtype: str
    target: str
    why: str

    @property
    def key(self) -> str:
        """Its name in a baseline."""
        return f"kernels/{self.op}/{self.dtype}/{self.target}"
