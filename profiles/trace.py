"""A trace as tables of integers: one row an event, times in nanoseconds, names as codes.

What each table holds follows the definitions in shared/TRACES.md; every reader (kineto, ...) fills the same ones.
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
Piece = np.ndarray[tuple[int, int], np.dtype[np.int64]]
Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


def joined(pieces: list[Piece]) -> Piece:
    """Side by side. The pieces go as they are copied, so that a table is never there twice."""
    whole, at = np.empty((len(pieces[0]) if pieces else 0, sum(piece.shape[1] for piece in pieces)), np.int64), 0
    while pieces:
        piece = pieces.pop(0)
        whole[:, at : at + piece.shape[1]] = piece
        at += piece.shape[1]
    return whole


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
    """Kernels, copies and fills. correlation, stream, device, node (of a CUDA graph): NONE where the file does not tell; bytes as well.

    shape: code into Trace.launches of what describes a launch (blocks and warps an SM, occupancy in %, grid, block). collective: 1 for what is NCCL's by
    name or by its metadata. external: the file's own link to an operator, which is not trusted.
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


@dataclass(frozen=True)
class Calls(Table):
    """Runtime and driver calls of the host. lane: code into Trace.lanes."""

    lane: Column
    correlation: Column
    external: Column


@dataclass(frozen=True)
class Spans(Table):
    """Operators, annotations, Python frames, and all else that lasts. shape: code into Trace.shapes of the inputs' dimensions and types; NONE where not recorded."""

    lane: Column
    external: Column
    shape: Column
    cat: Column


@dataclass(frozen=True)
class Memory:
    """The profiler's record of each allocation (`[memory]`). total: of the allocator afterwards, NONE where the file does not tell."""

    at: Column
    device_type: Column
    device: Column
    bytes: Column
    total: Column

    def __len__(self) -> int:
        return len(self.at)


@dataclass
class Damage:
    """What of a file could not be taken as it was. cut: it ends in the middle. lost: events that no reading could save, by reason. notes: each printed once."""

    cut: bool = False
    lost: Counter[str] = field(default_factory=Counter)
    notes: dict[str, None] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        return not self.cut and not self.lost


@dataclass(frozen=True)
class Trace:
    """source: kineto, onnxruntime. header: what stood around the events. others: events of kinds that no table holds, by phase and category."""

    path: str
    source: str
    header: dict[str, Any]
    names: list[str]
    lanes: list[tuple[Any, Any]]
    shapes: list[bytes]
    launches: list[bytes]
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
