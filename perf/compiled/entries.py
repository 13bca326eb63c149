"""What is known of a compiled kernel."""

from __future__ import annotations

from typing import Any

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """One kernel of one operation, dtype and target.

    op: `rms_norm/forward`, with a setting that is not the default `rms_norm/forward[columns:8192]`.

    bytes, flops, roofline_s: of the typical size; None where nothing is known of it, or for a part
    without a datasheet. variants: kernels that Triton would compile over 40 sizes
    (variants.py); None where it was not asked.
    """

    op: str
    dtype: str
    target: str
    config: dict[str, Any]
    registers: int
    spill_loads: int
    spill_stores: int
    stack_bytes: int
    shared_bytes: int
    occupancy: float
    instructions: int
    sass: dict[str, int]
    bytes: int | None
    flops: int | None
    roofline_s: float | None
    violations: tuple[str, ...]
    variants: int | None = None

    @property
    def key(self) -> str:
        return f"kernels/{self.op}/{self.dtype}/{self.target}"


class Failed(msgspec.Struct, frozen=True):
    """A kernel that the compiler refused."""

    op: str
    dtype: str
    target: str
    why: str

    @property
    def key(self) -> str:
        return f"kernels/{self.op}/{self.dtype}/{self.target}"
