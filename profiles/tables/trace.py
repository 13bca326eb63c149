"""A trace as tables of integers: one row an event, times in nanoseconds, names as codes.

What each table holds follows the definitions in docs/traces.md; every reader (kineto, ...) fills
the same ones.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

# What a column has where the file does not tell.
NONE = -1
Column = np.ndarray[tuple[int], np.dtype[np.int64]]
Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


class Rows:
    """Rows of integers that become columns, some at a time.

    Columns grow in place (realloc moves pages, not bytes), so that a table is never there twice.
    """

    def __init__(self, *fields: str) -> None:
        self.fields, self.rows = fields, list[tuple[int, ...]]()
        self.add = self.rows.append
        self.stored = [np.empty(0, np.int64) for _ in fields]
        self.filled = 0

    def flush(self) -> None:
        """Moves the rows into the columns: until then they take many times the memory."""
        if not self.rows:
            return
        after = self.filled + len(self.rows)
        some = np.array(self.rows, dtype=np.int64).T
        self.rows.clear()
        for column, values in zip(self.stored, some, strict=True):
            if after > len(column):
                column.resize(after + after // 2, refcheck=False)
            column[self.filled : after] = values
        self.filled = after

    def columns(self) -> dict[str, Column]:
        self.flush()
        for column in self.stored:
            column.resize(self.filled, refcheck=False)
        return dict(zip(self.fields, self.stored, strict=True))


class Kind(IntEnum):
    """What a GPU event does."""

    KERNEL = 0
    MEMCPY = 1
    MEMSET = 2


@dataclass(frozen=True)
class Table:
    """Rows in the order of the file; every column has as many."""

    # ns by the clock of the file.
    start: Column
    # ns.
    dur: Column
    # Code into Trace.names.
    name: Column

    def __len__(self) -> int:
        return len(self.start)

    @property
    def end(self) -> Column:
        return self.start + self.dur

    def rows(self, which: Any) -> Any:
        """Returns the same table with some of its rows, by a mask or by indices in their order."""
        return type(self)(**{name: column[which] for name, column in vars(self).items()})


@dataclass(frozen=True)
class Gpu(Table):
    """Kernels, copies and fills. A column is NONE where the file does not tell."""

    # A Kind.
    kind: Column
    # Number of the GPU.
    device: Column
    # Number of the stream.
    stream: Column
    # What the host call that launched it has too.
    correlation: Column
    # The file's own link to an operator, which is not trusted.
    external: Column
    # Bytes that were copied or filled.
    bytes: Column
    # Node of a CUDA graph.
    node: Column
    # Code into Trace.launches: blocks and warps an SM, occupancy in %, grid, block.
    shape: Column
    # 1 for what is NCCL's by name or by its metadata, else 0.
    collective: Column
    # Code into Trace.groups: its process group.
    group: Column


@dataclass(frozen=True)
class Calls(Table):
    """Runtime and driver calls of the host."""

    # Code into Trace.lanes: process and thread.
    lane: Column
    # What the GPU events that it launched have too; NONE without one.
    correlation: Column
    # The file's own link to an operator, which is not trusted.
    external: Column


@dataclass(frozen=True)
class Spans(Table):
    """Operators, annotations, Python frames, and all else that lasts."""

    # Code into Trace.lanes: process and thread.
    lane: Column
    # The number by which GPU events may link to it.
    external: Column
    # Code into Trace.shapes: dimensions and types of the inputs and, of some operators, values;
    # NONE where they are not recorded.
    shape: Column
    # Code into Trace.names: its category.
    cat: Column


@dataclass(frozen=True)
class Memory:
    """The profiler's record of each allocation (`[memory]`)."""

    # ns by the clock of the file.
    moment: Column
    # 0 CPU, 1 CUDA and ROCm (torch's c10/core/DeviceType.h).
    device_type: Column
    # Number of the device.
    device: Column
    # Bytes allocated; negative where they were freed.
    bytes: Column
    # Bytes that the allocator has given out afterwards; NONE where the file does not tell.
    total: Column

    def __len__(self) -> int:
        return len(self.moment)


@dataclass
class Damage:
    """What of a file could not be taken as it was."""

    # The file ends in the middle.
    cut: bool = False
    # Events that no reading could save, by reason, and their bytes.
    lost: Counter[str] = field(default_factory=Counter)
    lost_bytes: int = 0
    # What a reader is told, each once.
    notes: dict[str, None] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        return not self.cut and not self.lost


@dataclass(frozen=True)
class Trace:
    """The whole of a file: its tables, what their codes stand for, and what was left out."""

    # The file.
    path: str
    # Whose profiler wrote it: kineto, onnxruntime, openvino, tensorrt.
    source: str
    # What stood around the events.
    header: dict[str, Any]
    # What the codes of names stand for.
    names: list[str]
    # Process and thread by code.
    lanes: list[tuple[Any, Any]]
    # By code, JSON: [dimensions, types, values] of an operator's inputs.
    shapes: list[bytes]
    # By code, JSON: [blocks an SM, warps an SM, occupancy in %, grid, block] of a kernel's launch.
    launches: list[bytes]
    # By code, as the file has it: ranks or name of a process group.
    groups: list[bytes]
    # Kernels, copies and fills.
    gpu: Gpu
    # Runtime and driver calls.
    calls: Calls
    # Operators of torch, or nodes of a graph.
    operators: Spans
    # Annotations: steps, data loaders, sessions.
    notes: Spans
    # Python functions.
    frames: Spans
    # All else that lasts.
    spans: Spans
    # Allocations.
    memory: Memory
    # Number of events by phase ("X": lasts, "i": instant, "M": metadata, ...).
    phases: dict[str, int]
    # Number of events that last by category.
    categories: dict[str, int]
    # Number of events of kinds that no table holds, by phase and category.
    others: dict[str, int]
    # Number of events that were not used, by what is wrong with them.
    odd: dict[str, int]
    # What the file calls a process and thread.
    labels: dict[tuple[Any, Any], str]
    # What could not be taken as it was.
    damage: Damage
    # How many of the GPU's events, the last rows, are known for such by their process alone.
    by_label: int = 0

    @property
    def events(self) -> int:
        return sum(self.phases.values())

    @property
    def by_node(self) -> bool:
        """Whether it is a profile by the nodes of a graph, not by torch's operators."""
        return self.source != "kineto"

    @property
    def device(self) -> dict[str, Any]:
        """Properties of the first GPU; empty where the file has none."""
        listed = self.header.get("deviceProperties")
        return listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}

    @property
    def gpu_name(self) -> str:
        return str(self.device.get("name") or "unknown GPU")

    def named(self, pattern: re.Pattern[str]) -> Mask:
        """Returns which names the pattern finds, by code.

        `trace.named(X)[table.name]` are the rows.
        """
        return np.array([pattern.search(name) is not None for name in self.names], dtype=bool)
