"""Which operator stands behind a GPU event: the innermost one on the host call's thread that contains the call's start.

Never by `External id`, which is the correlation id in files of torch 1.11 to 2.3 (shared/TRACES.md).
"""

from __future__ import annotations

import numpy as np

from .launches import Launches
from .trace import NONE, Column, Spans


def innermost(spans: Spans, lane: Column, at: Column) -> Column:
    """Row of the innermost span of that lane at each moment; NONE where there is none. Spans of a lane are nested."""
    found = np.full(len(at), NONE, np.int64)
    order = np.lexsort((-spans.dur, spans.start, spans.lane))
    lanes = spans.lane[order]
    asked = np.lexsort((at, lane))
    for one in np.unique(lane):
        rows = order[np.searchsorted(lanes, one) : np.searchsorted(lanes, one, side="right")]
        moments = asked[np.searchsorted(lane[asked], one) : np.searchsorted(lane[asked], one, side="right")]
        starts, ends = spans.start[rows].tolist(), spans.end[rows].tolist()
        open_rows: list[int] = []
        next_row = 0
        for moment, index in zip(at[moments].tolist(), moments.tolist(), strict=True):
            while next_row < len(starts) and starts[next_row] <= moment:
                open_rows.append(next_row)
                next_row += 1
            while open_rows and ends[open_rows[-1]] < moment:
                open_rows.pop()
            if open_rows:
                found[index] = rows[open_rows[-1]]
    return found


def behind(operators: Spans, launches: Launches) -> Column:
    """Row in `operators` for each event of `launches.gpu`; NONE where there is no call, or no operator around it."""
    found = np.full(len(launches.gpu), NONE, np.int64)
    known = launches.known
    calls = launches.calls.rows(launches.call[known])
    found[known] = innermost(operators, calls.lane, calls.start)
    return found
