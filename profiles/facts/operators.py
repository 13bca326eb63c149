"""Which operator stands behind a GPU event: the innermost one on the host call's thread that
contains the call's start.

Never by `External id`, which is the correlation id in files of torch 1.11 to 2.3: of 22,290 such
links in one of them none was right.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..tables.trace import NONE, Column, Spans
from .launches import Launches

# Rows that become Python's integers together: memory follows it.
AT_ONCE = 100_000
# (start, end, row) after the last span.
LAST = (1 << 63, 0, 0)


def innermost(spans: Spans, lane: Column, moments: Column) -> Column:
    """Returns the row of the innermost span of that lane at each moment; NONE where there is none.

    Spans of a lane are nested.
    """
    inner = np.full(len(moments), NONE, np.int64)
    order = np.lexsort((-spans.dur, spans.start, spans.lane))
    lanes = spans.lane[order]
    by_lane = np.lexsort((moments, lane))
    asked = lane[by_lane]
    for thread in np.unique(lane):
        rows = order[np.searchsorted(lanes, thread) : np.searchsorted(lanes, thread, side="right")]
        own = by_lane[np.searchsorted(asked, thread) : np.searchsorted(asked, thread, side="right")]
        coming = in_order(rows, spans.start, spans.end)
        start, end, row = next(coming, LAST)
        around: list[tuple[int, int]] = []
        for moment, _, index in in_order(own, moments, moments):
            while start <= moment:
                around.append((end, row))
                start, end, row = next(coming, LAST)
            while around and around[-1][0] < moment:
                around.pop()
            if around:
                inner[index] = around[-1][1]
    return inner


def in_order(rows: Column, start: Column, end: Column) -> Iterator[tuple[int, int, int]]:
    """Yields (start, end, row) of these rows, made a part at a time: Python's integers take five
    times the memory of a column's.
    """
    for first in range(0, len(rows), AT_ONCE):
        some = rows[first : first + AT_ONCE]
        yield from zip(start[some].tolist(), end[some].tolist(), some.tolist(), strict=True)


def behind(operators: Spans, launches: Launches) -> Column:
    """Returns the row in `operators` for each event of `launches.gpu`; NONE where there is no call,
    or no operator around it.
    """
    rows = np.full(len(launches.gpu), NONE, np.int64)
    known = launches.known
    call = launches.call[known]
    rows[known] = innermost(operators, launches.calls.lane[call], launches.calls.start[call])
    return rows
