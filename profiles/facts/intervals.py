"""Sets of moments, as disjoint intervals in order: what is busy, idle, covered. All in integers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..tables.trace import Column


class Intervals(NamedTuple):
    """Disjoint intervals in order, in ns; ends are not part of them.

    None is empty, but where nothing else is at its place.
    """

    start: Column
    end: Column

    @property
    def length(self) -> int:
        return int(np.sum(self.end - self.start))

    def within(self, start: int, end: int) -> int:
        """Returns how much of them lies between the two, in ns."""
        return int(np.sum(np.maximum(0, np.minimum(self.end, end) - np.maximum(self.start, start))))


def union(start: Column, end: Column) -> Intervals:
    """Returns the union of intervals that may overlap; those that touch become one."""
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
    """Returns how much of a lies outside b, in ns."""
    return both(a, b).length - b.length


def gaps(busy: Intervals) -> Intervals:
    """Returns the holes between them."""
    return Intervals(busy.end[:-1], busy.start[1:])
