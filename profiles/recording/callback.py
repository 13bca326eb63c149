"""The profile of a few training steps, taken inside Lightning's own fit:

    Trainer(callbacks=[hotlap.Profile("trace.json.gz")]).fit(module, data)

The first steps run without the profiler and are timed, then come its warm-up and the recorded
steps, then the file is written and the rest of the training runs as it would have. A step lasts
from the end of one batch to the end of the next, so that loading the data is part of it; validation
between them is not.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning.pytorch as L

from ...perf.lowering import torch_step
from ...perf.race import profiling
from ...perf.terms.contract import Overhead, Schedule


class Profile(L.Callback):
    """A callback for Lightning's Trainer; `file` ends in .json or .json.gz.

    Steps are counted from the first of this fit. Raises ValueError for a schedule that records
    nothing.

    Only the first process of several writes.
    """

    def __init__(
        self,
        file: str | Path,
        wait: int = 10,
        warmup: int = 2,
        active: int = 3,
        stacks: bool = False,
        about: dict[str, Any] | None = None,
    ) -> None:
        if wait < 2 or warmup < 1 or active < 1:
            raise ValueError(
                "Profile needs wait >= 2 (the truth that the profiler is compared with), warmup >= 1 and"
                f" active >= 1, not {wait}, {warmup}, {active}"
            )
        self.file, self.about = Path(file), about or {}
        self.schedule = Schedule(wait, warmup, active, stacks)
        self.profiler: Any = None
        self.steps: list[float] = []
        self.begun = self.paused = 0.0
        self.written = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Raises ValueError at once where the file could not be written at the end."""
        if self.file.is_dir():
            raise ValueError(f"Profile({str(self.file)!r}): is a folder; name a file in it")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"Profile({str(self.file)!r}): cannot be written: {error.strerror}") from None
        self.steps, self.written = [], False
        self.begin(pl_module)

    def begin(self, module: L.LightningModule) -> None:
        self.begun, self.paused = self.now(module), 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.written or not trainer.is_global_zero:
            return
        self.steps.append(self.now(pl_module) - self.begun - self.paused)
        if self.profiler is not None:
            self.profiler.step()
        elif len(self.steps) >= self.schedule.wait:
            self.profiler = torch_step.torch_profiler(
                self.schedule, pl_module.device.type == "cuda", self.write
            )
            self.profiler.start()
        self.begin(pl_module)  # starting and stopping the profiler belongs to no step

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A validation between two batches belongs to no step either."""
        self.paused -= self.now(pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.paused += self.now(pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.stop()
        if not self.written and trainer.is_global_zero and len(self.steps) < self.needed:
            warnings.warn(
                f"{self.file} was not written: {len(self.steps)} steps were trained, the profile needs"
                f" {self.needed}; train longer or wait less",
                stacklevel=2,
            )

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self.stop()

    @property
    def needed(self) -> int:
        return self.schedule.wait + self.schedule.warmup + self.schedule.active

    def stop(self) -> None:
        """Ends a profiler that is still recording; what it has is not written."""
        profiler, self.profiler = self.profiler, None
        if profiler is not None and not self.written:
            profiler.on_trace_ready = None
            profiler.stop()

    def write(self, profiler: Any) -> None:
        """Writes the file, with what a step takes without the profiler.

        That is told by all steps before it but the first of the fit, which sets things up. A file
        that cannot be written is a warning, not the end of a training.
        """
        overhead = Overhead.of(self.steps[1 : self.schedule.wait], self.steps[-self.schedule.active :])
        about = {**self.about, "schedule": self.schedule, "overhead": overhead}
        try:
            with TemporaryDirectory(prefix="profile-", dir=self.file.parent) as folder:
                raw = Path(folder) / "raw.json"
                torch_step.export_torch(profiler, raw)
                profiling.seal(raw, self.file, about)
        except OSError as error:
            warnings.warn(f"{self.file} was not written: {error.strerror}", stacklevel=2)
        self.written = True

    def now(self, module: L.LightningModule) -> float:
        """Returns the time in s at which the work so far is done."""
        if module.device.type == "cuda":
            import torch

            torch.cuda.synchronize(module.device)
        return time.perf_counter()
