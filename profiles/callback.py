"""The profile of a few training steps, taken inside Lightning's own fit:

    Trainer(callbacks=[hotlap.Profile("trace.json.gz")]).fit(module, data)

The first steps run without the profiler and are timed, then come its warm-up and the recorded steps, then the file is written and the rest of the
training runs as it would have. A step lasts from the end of one batch to the end of the next, so that loading the data is part of it.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as L

from ..perf import profiling
from ..perf.profiling import Overhead, Schedule


class Profile(L.Callback):
    """file: ends in .json or .json.gz. Steps are counted from the first of this fit. Raises ValueError for a schedule that records nothing.

    Only the first process of several writes.
    """

    def __init__(self, file: str | Path, wait: int = 10, warmup: int = 2, active: int = 3, stacks: bool = False, about: dict[str, Any] | None = None) -> None:
        if wait < 2 or warmup < 1 or active < 1:
            raise ValueError(f"Profile needs wait >= 2 (the truth that the profiler is compared with), warmup >= 1 and active >= 1, not {wait}, {warmup}, {active}")
        self.file, self.about = Path(file), about or {}
        self.schedule = Schedule(wait, warmup, active, stacks)
        self.profiler: Any = None
        self.ends: list[float] = []
        self.written = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.ends, self.written = [self.now(pl_module)], False

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.written or not trainer.is_global_zero:
            return
        self.ends.append(self.now(pl_module))
        if self.profiler is not None:
            self.profiler.step()
        elif len(self.ends) > self.schedule.wait:
            self.profiler = profiling.torch_profiler(self.schedule, pl_module.device.type == "cuda", self.write)
            self.profiler.start()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.stop()
        if not self.written and trainer.is_global_zero:
            needed = self.schedule.wait + self.schedule.warmup + self.schedule.active
            warnings.warn(f"{self.file} was not written: {len(self.ends) - 1} steps were trained, the profile needs {needed}; train longer or wait less", stacklevel=2)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends a profiler that is still recording; what it has is not written."""
        profiler, self.profiler = self.profiler, None
        if profiler is not None and not self.written:
            profiler.on_trace_ready = None
            profiler.stop()

    def write(self, profiler: Any) -> None:
        """All steps but the first of the fit, which sets things up, tell what a step takes without the profiler. Raises OSError."""
        steps = [after - before for before, after in zip(self.ends, self.ends[1:], strict=False)]
        recorded = len(steps) - self.schedule.active
        overhead = Overhead.of(steps[1 : self.schedule.wait], steps[recorded:])
        self.file.parent.mkdir(parents=True, exist_ok=True)
        raw = self.file.with_name(self.file.name + ".raw.json")
        profiling.export_torch(profiler, raw)
        profiling.seal(raw, self.file, {**self.about, "schedule": self.schedule, "overhead": overhead})
        self.written = True

    def now(self, module: L.LightningModule) -> float:
        """When the work so far is done."""
        if module.device.type == "cuda":
            import torch

            torch.cuda.synchronize(module.device)
        return time.perf_counter()
