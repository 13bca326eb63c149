"""What was seen of one entrant during a race, raw: the metrics are computed from this and from
nothing else.
"""

from __future__ import annotations

import msgspec

from ..machine.telemetry import Span, Window
from ..terms.case import Case
from ..terms.reasons import Reason
from ..terms.work import Subject
from .timing import Turn, WarmUp


class Block(msgspec.Struct):
    """One worker process."""

    # It imported everything itself: its import time and memory are those of a real start.
    fresh: bool
    # Seconds from starting the process to imports done, of loading, and of the first call.
    start_s: float
    load_s: float
    first_call_s: float
    # Peak resident memory after imports, while loading, during the first call.
    import_peak_bytes: int
    load_peak_bytes: int
    first_call_peak_bytes: int
    warm: WarmUp | None = None
    turns: list[Turn] = []
    # Each turn's number in the race.
    numbers: list[int] = []
    # J a call of each turn; empty without a counter.
    joules: list[float] = []
    # RMSE of each turn's last outputs.
    rmse: list[float] = []
    # What the parent's clock and the worker's show at the end of each turn, s.
    clocks: list[tuple[float, float]] = []
    # Seconds of single calls.
    tail: list[float] = []
    # Peak resident memory of the timed calls.
    run_peak_bytes: int = 0
    # Source -> bytes of the GPU's memory (memory.gpu_bytes).
    gpu: dict[str, int] = {}
    # The GPU before and after the block, or why it is not known.
    device: Span | None = None
    no_device: Reason | None = None
    # Of calls that were not timed.
    energy: Window | None = None
    # Share of the machine's time that its host took away.
    steal: float = 0.0
    # Seconds of the race that went to this worker.
    spent_s: float = 0.0
    # Whether the scheduler preferred it (priority.py).
    priority: str = ""


class Observations(msgspec.Struct):
    """All that was seen of one entrant."""

    case: Case
    # Phase of the cold build -> seconds.
    ledger: dict[str, float]
    subject: Subject
    # Name -> what this machine can do at most in the case's precision, and in fp32.
    peaks: dict[str, float] = {}
    fp32: dict[str, float] = {}
    artefact_bytes: int = 0
    blocks: list[Block] = []
    # Why there is no energy counter, and why a GPU's gave no figure.
    no_meter: Reason | None = None
    no_energy: Reason | None = None

    @property
    def timed(self) -> list[Block]:
        return [block for block in self.blocks if block.turns]

    @property
    def unsteady(self) -> int:
        """In how many blocks the warm-up ended before samples agreed."""
        return sum(block.warm is not None and not block.warm.steady for block in self.timed)

    @property
    def steady(self) -> bool:
        """Whether they agreed in most blocks."""
        return 2 * self.unsteady < len(self.timed)

    @property
    def fresh(self) -> list[Block]:
        return [block for block in self.timed if block.fresh]
