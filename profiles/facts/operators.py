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

AT_ONCE = 100_000
LAST = (1 << 63, 0, 0)


def innermost(spans: Spans, lane: Column, at: Column) -> Column:
    """Row of the innermost span of that lane at each moment; NONE where there is none.

    Spans of a lane are nested.
    """
    found = np.full(len(at), NONE, np.int64)
    order = np.lexsort((-spans.dur, spans.start, spans.lane))
    lanes = spans.lane[order]
    asked = np.lexsort((at, lane))
    for one in np.unique(lane):
        rows = order[np.searchsorted(lanes, one) : np.searchsorted(lanes, one, side="right")]
        moments = asked[np.searchsorted(lane[asked], one) : np.searchsorted(lane[asked], one, side="right")]
        coming = in_order(rows, spans.start, spans.end)
        start, end, row = next(coming, LAST)
        around: list[tuple[int, int]] = []
        for moment, _, index in in_order(moments, at, at):
            while start <= moment:
                around.append((end, row))
                start, end, row = next(coming, LAST)
            while around and around[-1][0] < moment:
                around.pop()
            if around:
                found[index] = around[-1][1]
    return found


def in_order(rows: Column, start: Column, end: Column) -> Iterator[tuple[int, int, int]]:
    """(start, end, row) of these rows, a part at a time:

    Python's integers take five times the memory of a column's.
    """
    for first in range(0, len(rows), AT_ONCE):
        some = rows[first : first + AT_ONCE]
        yield from zip(start[some].tolist(), end[some].tolist(), some.tolist(), strict=True)


def behind(operators: Spans, launches: Launches) -> Column:
    """Row in `operators` for each event of `launches.gpu`; NONE where there is no call, or no
    operator around it.
    """
    found = np.full(len(launches.gpu), NONE, np.int64)
    known = launches.known
    call = launches.call[known]
    found[known] = innermost(operators, launches.calls.lane[call], launches.calls.start[call])
    return found
