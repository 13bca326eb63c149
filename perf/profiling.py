"""Capturing a profile: a backend's own profiler over some calls, what it adds to a call, and one
file that says both.

The file is what the library's profiler writes (torch: Kineto's JSON; ONNX Runtime: its JSON), with
a section `hotlap` in front of it: the case, the schedule, and the time of a call without and with
the profiler, so that a reader knows how far the figures are from the truth.
"""

from __future__ import annotations

import gzip
import os
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

# 1 (0.1.0): first version of the section `hotlap`.
SCHEMA = 1
COMPRESSION = 5


class Schedule(msgspec.Struct, frozen=True):
    """wait: calls without the profiler, whose median is the truth.

    warmup: calls whose events are thrown away. active: calls that are recorded.

    stacks: Python's stacks as well, which cost most. shapes, memory: of every operator, every
    allocation.
    """

    wait: int = 20
    warmup: int = 3
    active: int = 5
    stacks: bool = False
    shapes: bool = True
    memory: bool = True


class Overhead(msgspec.Struct, frozen=True):
    """s: medians of `calls` calls without the profiler and of those it recorded."""

    plain_s: float
    profiled_s: float
    calls: tuple[int, int]

    @property
    def factor(self) -> float:
        return self.profiled_s / self.plain_s

    @classmethod
    def of(cls, plain: Sequence[float], profiled: Sequence[float]) -> Overhead:
        return cls(statistics.median(plain), statistics.median(profiled), (len(plain), len(profiled)))


def timed(call: Callable[[], Any]) -> float:
    """Seconds of one call that returns when its work is done."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def torch_profiler(schedule: Schedule, cuda: bool, write: Callable[[Any], None] | None = None) -> Any:
    """A `torch.profiler.profile` that waits for nothing: warm-up, then the active steps, each
    closed by its `step()`; `write` gets it when they are over.
    """
    import torch.profiler as torch_profiler

    kinds = torch_profiler.ProfilerActivity
    return torch_profiler.profile(
        activities=[kinds.CPU, *([kinds.CUDA] if cuda else [])],
        schedule=torch_profiler.schedule(wait=0, warmup=schedule.warmup, active=schedule.active, repeat=1),
        on_trace_ready=write,
        record_shapes=schedule.shapes,
        profile_memory=schedule.memory,
        with_stack=schedule.stacks,
        acc_events=True,
    )


def export_torch(profiler: Any, path: Path) -> None:
    """Kineto's JSON.

    Its own name, which it writes into the file, without the folders of this machine.
    """
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        profiler.export_chrome_trace(path.name)
    finally:
        os.chdir(here)


def seal(raw: Path, file: Path, about: dict[str, Any]) -> None:
    """Moves a profile to its place, with `about` in front; gzip where the name ends in .gz.

    A bare list becomes traceEvents. Raises OSError.

    A reader never sees half of it.
    """
    part = file.with_name(file.name + ".part")
    head = b'{"hotlap": ' + msgspec.json.encode({"schema": SCHEMA, **about}) + b",\n"
    try:
        with raw.open("rb") as source, opened(part, file.name.endswith(".gz")) as sink:
            start = source.read(1)
            while start.isspace():
                start = source.read(1)
            sink.write(head if start == b"{" else head + b'"traceEvents": [')
            shutil.copyfileobj(source, sink, 1 << 20)
            if start == b"[":
                sink.write(b"}\n")
        part.replace(file)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    raw.unlink()


def opened(path: Path, packed: bool) -> Any:
    return gzip.open(path, "wb", COMPRESSION) if packed else path.open("wb")
