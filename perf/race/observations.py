"""What was seen of one entrant during a race, raw: the metrics are computed from this and from
nothing else.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..machine.telemetry import Span, Window
from ..terms.case import Case
from ..terms.reasons import Reason
from .timing import Turn, WarmUp


class Block(msgspec.Struct):
    """One worker process.

    fresh: it imported everything itself, so its import time and memory are those of a real start.

    start_s: from starting the process to imports done. Peaks in bytes, one a phase. steal: share of
    the machine's time that its host took away. spent_s: of the race's time, what went to this
    worker. priority: whether the scheduler prefers it (priority.py). gpu: bytes (memory.gpu_bytes).
    device: the GPU before and after the block; no_device: why it is not known. energy: of calls
    that were not timed.
    """

    fresh: bool
    start_s: float
    load_s: float
    first_call_s: float
    import_peak_bytes: int
    load_peak_bytes: int
    first_call_peak_bytes: int
    warm: WarmUp | None = None
    turns: list[Turn] = []
    numbers: list[int] = []
    joules: list[float] = []
    rmse: list[float] = []
    tail: list[float] = []
    run_peak_bytes: int = 0
    gpu: dict[str, int] = {}
    device: Span | None = None
    no_device: Reason | None = None
    energy: Window | None = None
    steal: float = 0.0
    spent_s: float = 0.0
    priority: str = ""


class Observations(msgspec.Struct):
    """ledger: seconds of each phase of the cold build.

    info: what the reference knows (flops, items, item). peaks: of this machine in the case's
    precision, fp32: in fp32.

    no_meter: why there is no energy counter. no_energy: why a GPU's gave no figure.
    """

    case: Case
    ledger: dict[str, float]
    info: dict[str, Any]
    peaks: dict[str, float]
    blocks: list[Block] = []
    no_meter: Any = None
    no_energy: Reason | None = None
    fp32: dict[str, float] = {}

    @property
    def timed(self) -> list[Block]:
        return [block for block in self.blocks if block.turns]

    @property
    def fresh(self) -> list[Block]:
        return [block for block in self.timed if block.fresh]
