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
        """Call it now and then: rows not yet in columns take many times their memory."""
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
    """Of a GPU event."""

    KERNEL = 0
    MEMCPY = 1
    MEMSET = 2


@dataclass(frozen=True)
class Table:
    """Rows in the order of the file. start, dur: ns. name: code into Trace.names."""

    start: Column
    dur: Column
    name: Column

    def __len__(self) -> int:
        return len(self.start)

    @property
    def end(self) -> Column:
        return self.start + self.dur

    def rows(self, which: Any) -> Any:
        """The same table with some of its rows, in that order: a mask or indices."""
        return type(self)(**{name: column[which] for name, column in vars(self).items()})


@dataclass(frozen=True)
class Gpu(Table):
    """Kernels, copies and fills. correlation, stream, device, node (of a CUDA graph):

    NONE where the file does not tell; bytes as well.

    shape: code into Trace.launches of what describes a launch (blocks and warps an SM, occupancy in
    %, grid, block). collective: 1 for what is NCCL's by name or by its metadata. group: code into
    Trace.groups of its process group, as the file has it. external: the file's own link to an
    operator, which is not trusted.
    """

    kind: Column
    device: Column
    stream: Column
    correlation: Column
    external: Column
    bytes: Column
    node: Column
    shape: Column
    collective: Column
    group: Column


@dataclass(frozen=True)
class Calls(Table):
    """Runtime and driver calls of the host. lane: code into Trace.lanes."""

    lane: Column
    correlation: Column
    external: Column


@dataclass(frozen=True)
class Spans(Table):
    """Operators, annotations, Python frames, and all else that lasts.

    shape: code into Trace.shapes of the inputs' dimensions, types and, of some operators, values;
    NONE where not recorded.
    """

    lane: Column
    external: Column
    shape: Column
    cat: Column


@dataclass(frozen=True)
class Memory:
    """The profiler's record of each allocation (`[memory]`).

    total: of the allocator afterwards, NONE where the file does not tell.
    """

    at: Column
    device_type: Column
    device: Column
    bytes: Column
    total: Column

    def __len__(self) -> int:
        return len(self.at)


@dataclass
class Damage:
    """What of a file could not be taken as it was.

    cut: it ends in the middle. lost: events that no reading could save, by reason. notes: each
    printed once.
    """

    cut: bool = False
    lost: Counter[str] = field(default_factory=Counter)
    notes: dict[str, None] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        return not self.cut and not self.lost


@dataclass(frozen=True)
class Trace:
    """source: kineto, onnxruntime, openvino, tensorrt.

    header: what stood around the events. others: events of kinds that no table holds, by phase and
    category.
    """

    path: str
    source: str
    header: dict[str, Any]
    names: list[str]
    lanes: list[tuple[Any, Any]]
    shapes: list[bytes]
    launches: list[bytes]
    groups: list[bytes]
    gpu: Gpu
    calls: Calls
    operators: Spans
    notes: Spans
    frames: Spans
    spans: Spans
    memory: Memory
    phases: dict[str, int]
    categories: dict[str, int]
    others: dict[str, int]
    odd: dict[str, int]
    labels: dict[tuple[Any, Any], str]
    damage: Damage

    @property
    def events(self) -> int:
        return sum(self.phases.values())

    @property
    def by_node(self) -> bool:
        """A profile by the nodes of a graph, not by torch's operators."""
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
        """Which names have it, by code: `trace.named(X)[table.name]` are the rows."""
        return np.array([pattern.search(name) is not None for name in self.names], dtype=bool)
