"""How much of the disk a run's checkpoints may take: beyond it the oldest go, never last and best.

Counted are last.ckpt and what lies in the run's folder checkpoints/. While a checkpoint is written
there is one more.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from ...perf.terms.reasons import Misuse
from ...perf.terms.units import BYTES, scaled
from .. import runs


class DiskBudget:
    """Removes checkpoints beyond a budget, after each that is written."""

    def __init__(self, folder: Path, limit_bytes: int | None, report: Callable[[str], None]) -> None:
        """folder: the run's. limit_bytes: None for no limit. report: gets a line where even those
        that stay are more.
        """
        self.folder, self.limit_bytes, self.report = folder, limit_bytes, report
        # The trainer's, whose best checkpoints stay.
        self.callbacks: list[Any] = []
        self.exceeded = False

    def keep(self, newest: Path) -> None:
        """Removes the oldest. newest: was just written, and stays."""
        if self.limit_bytes is None:
            return
        last = self.folder / runs.CHECKPOINT
        within = (self.folder / runs.CHECKPOINTS).rglob("*.ckpt")
        sizes = {path.resolve(): path.stat() for path in [last, *within] if path.exists()}
        total = sum(each.st_size for each in sizes.values())
        kept = {last.resolve(), newest.resolve(), *self.best()}
        for path in sorted(sizes.keys() - kept, key=lambda path: (sizes[path].st_mtime_ns, path.name)):
            if total <= self.limit_bytes:
                return
            path.unlink()
            total -= sizes[path].st_size
        if total > self.limit_bytes and not self.exceeded:
            self.exceeded = True
            self.report(
                f"the last and the best checkpoints take {scaled(total, 'B')}, more than the disk_budget of"
                f" {scaled(self.limit_bytes, 'B')}; training goes on"
            )

    def best(self) -> set[Path]:
        """The files that a ModelCheckpoint calls its best or its last."""
        own = [each for each in self.callbacks if isinstance(each, ModelCheckpoint)]
        paths = [path for each in own for path in (each.best_model_path, each.last_model_path)]
        return {Path(path).resolve() for path in paths if path}


def size_bytes(text: str) -> int:
    """Returns a size such as 2GB or 512MiB in bytes. Raises Misuse."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([A-Za-z]+)", text.strip())
    if match is None or match[2] not in BYTES:
        raise Misuse(f"disk_budget: {text!r} is no size; write a number and one of {', '.join(BYTES)}: 2GB")
    return int(float(match[1]) * BYTES[match[2]])
