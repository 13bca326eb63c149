"""Sets of moments, as disjoint intervals in order: what is busy, idle, covered. All in integers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..tables.trace import Column


class Intervals(NamedTuple):
    """Disjoint, in order, none empty but where nothing else is at its place; ends are not part of
    them.
    """

    start: Column
    end: Column

    @property
    def length(self) -> int:
        return int(np.sum(self.end - self.start))

    def within(self, start: int, end: int) -> int:
        """How much of them lies between the two."""
        return int(np.sum(np.maximum(0, np.minimum(self.end, end) - np.maximum(self.start, start))))


def union(start: Column, end: Column) -> Intervals:
    """Of intervals that may overlap; those that touch become one."""
    if not len(start):
        return Intervals(start, end)
    order = np.argsort(start, kind="stable")
    begin, reach = start[order], np.maximum.accumulate(end[order])
    new = np.concatenate([[True], begin[1:] > reach[:-1]])
    last = np.concatenate([np.flatnonzero(new)[1:] - 1, [len(begin) - 1]])
    return Intervals(begin[new], reach[last])


def both(a: Intervals, b: Intervals) -> Intervals:
    return union(np.concatenate([a.start, b.start]), np.concatenate([a.end, b.end]))


def without(a: Intervals, b: Intervals) -> int:
    """How much of a lies outside b."""
    return both(a, b).length - b.length


def gaps(busy: Intervals) -> Intervals:
    """The holes between."""
    return Intervals(busy.end[:-1], busy.start[1:])
