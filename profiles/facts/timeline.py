"""What the GPU did with its time: computing, communicating, copying, idle; what of it was hidden
behind something else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..tables.trace import Gpu, Kind, Mask, Trace
from . import intervals
from .intervals import Intervals

# Collectives that are not NCCL's: of vLLM, TensorRT-LLM, torch's symmetric memory, NVSHMEM.
OTHER_COLLECTIVES = re.compile(
    r"all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|cross_device_reduce|nvshmem"
    r"|(?:deep_?ep|intranode|internode|low_latency).*(?:dispatch|combine)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Timeline:
    """The GPU events of one device and the moments that they cover.

    `comm` is what is NCCL's, by name or by the file's own metadata; `all_comm` has every collective
    that its name tells (docs/traces.md).
    """

    gpu: Gpu
    # By name code: which kernels are collectives of other libraries.
    others: Mask

    @cached_property
    def start(self) -> int:
        return int(self.gpu.start.min()) if len(self.gpu) else 0

    @cached_property
    def end(self) -> int:
        return int(self.gpu.end.max()) if len(self.gpu) else 0

    @property
    def window(self) -> int:
        return self.end - self.start

    @cached_property
    def busy(self) -> Intervals:
        return intervals.union(self.gpu.start, self.gpu.end)

    @property
    def idle(self) -> int:
        return self.window - self.busy.length

    @cached_property
    def gaps(self) -> Intervals:
        return intervals.gaps(self.busy)

    def part(self, which: Mask) -> Intervals:
        return intervals.union(self.gpu.start[which], self.gpu.end[which])

    @cached_property
    def comm(self) -> Intervals:
        return self.part((self.gpu.kind == Kind.KERNEL) & (self.gpu.collective == 1))

    @cached_property
    def compute(self) -> Intervals:
        return self.part((self.gpu.kind == Kind.KERNEL) & (self.gpu.collective == 0))

    @cached_property
    def collective(self) -> Mask:
        """Returns which events are any library's collectives."""
        return np.asarray(
            (self.gpu.kind == Kind.KERNEL) & ((self.gpu.collective == 1) | self.others[self.gpu.name])
        )

    @cached_property
    def all_comm(self) -> Intervals:
        return self.part(self.collective)

    @property
    def exposed_all_comm(self) -> int:
        return intervals.without(self.all_comm, self.part((self.gpu.kind == Kind.KERNEL) & ~self.collective))

    @cached_property
    def mem(self) -> Intervals:
        return self.part(self.gpu.kind != Kind.KERNEL)

    @property
    def exposed_comm(self) -> int:
        return intervals.without(self.comm, self.compute)

    @property
    def exposed_mem(self) -> int:
        return intervals.without(self.mem, intervals.both(self.compute, self.comm))

    @property
    def exposed_copies(self) -> int:
        """Returns ns of copies and fills that nothing else hides."""
        return intervals.without(self.mem, self.part(self.gpu.kind == Kind.KERNEL))

    def summed(self, kind: Kind | None = None) -> int:
        return int(np.sum(self.gpu.dur if kind is None else self.gpu.dur[self.gpu.kind == kind]))


def of(trace: Trace, device: int | None = None) -> Timeline:
    """Returns the timeline of a device, or of the one that is busy the longest."""
    if device is None:
        device = devices(trace)[0] if len(trace.gpu) else 0
    own = trace.gpu.device == device
    return Timeline(trace.gpu if own.all() else trace.gpu.rows(own), trace.named(OTHER_COLLECTIVES))


def devices(trace: Trace) -> list[int]:
    """Returns the numbers of the devices, those that are busy the longest first."""
    numbers = [int(number) for number in np.unique(trace.gpu.device)]
    if len(numbers) < 2:
        return numbers
    busy = busy_by_device(trace)
    return sorted(busy, key=lambda number: -busy[number])


def busy_by_device(trace: Trace) -> dict[int, int]:
    """Returns how long each device was busy, ns."""
    gpu = trace.gpu
    return {
        int(number): intervals.union(gpu.start[own], gpu.end[own]).length
        for number in np.unique(gpu.device)
        for own in [gpu.device == number]
    }
