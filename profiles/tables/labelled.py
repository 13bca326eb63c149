"""Events without a category, told by what their process and thread are called: traces of JAX and
XLA, of Ascend's profiler.

A process that is named after a device has kernels; others have what the program did.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np

from .trace import NONE, Column, Gpu, Kind, Mask, Spans, Trace

# Names of processes whose lines are a device's streams: of XLA (/device:GPU:0 NVIDIA H100), Ascend.
DEVICE = re.compile(r"^/device:(?!CPU)\w+:(?P<number>\d+)|^Ascend Hardware|^Communication\b")
# Of those, the ones that hold collectives.
COLLECTIVES = re.compile(r"^Communication\b")
NUMBER = re.compile(r"\d+")


def sorted_out(trace: Trace) -> Trace:
    """Returns the trace with events of no category where their process says they belong."""
    if "" not in trace.names or not len(trace.spans):
        return trace
    own = trace.spans.cat == trace.names.index("")
    titles = {lane: title(trace, lane) for lane in np.unique(trace.spans.lane[own]).tolist()}
    if not any(DEVICE.match(words) for words in titles.values()):
        return trace
    on_device = own & np.isin(
        trace.spans.lane, [lane for lane, words in titles.items() if DEVICE.match(words)]
    )
    named = own & ~on_device & np.isin(trace.spans.lane, [lane for lane, words in titles.items() if words])
    return replace(
        trace,
        gpu=joined(trace.gpu, kernels(trace, trace.spans.rows(on_device), titles)),
        frames=joined(trace.frames, trace.spans.rows(named)),
        spans=trace.spans.rows(~on_device & ~named),
        by_label=int(np.sum(on_device)),
    )


def title(trace: Trace, lane: int) -> str:
    """Returns what a thread's process is called; empty where the file does not say."""
    pid, _ = trace.lanes[lane]
    return next((words for (process, _), words in trace.labels.items() if process == pid and words), "")


def stream(trace: Trace, lane: int) -> int:
    """Returns the number in a thread's name, else its own."""
    pid, tid = trace.lanes[lane]
    match = NUMBER.search(trace.labels.get((pid, tid), ""))
    return int(match[0]) if match and len(match[0]) < 10 else tid if isinstance(tid, int) else lane


def kernels(trace: Trace, spans: Spans, titles: dict[int, str]) -> Gpu:
    """Returns a device's events, each of its thread's stream."""
    lanes = {lane: (device(titles[lane]), stream(trace, lane)) for lane in np.unique(spans.lane).tolist()}

    def column(values: list[int]) -> Column:
        return np.array(values, dtype=np.int64)

    collective: Mask = np.array([COLLECTIVES.match(titles[lane]) is not None for lane in spans.lane.tolist()])
    nothing = np.full(len(spans), NONE, np.int64)
    known: dict[str, Any] = {
        "start": spans.start,
        "dur": spans.dur,
        "name": spans.name,
        "kind": np.full(len(spans), int(Kind.KERNEL), np.int64),
        "device": column([lanes[lane][0] for lane in spans.lane.tolist()]),
        "stream": column([lanes[lane][1] for lane in spans.lane.tolist()]),
        "collective": collective.astype(np.int64),
    }
    return Gpu(**{name: known.get(name, nothing) for name in Gpu.__dataclass_fields__})


def device(words: str) -> int:
    match = DEVICE.match(words)
    return int(match["number"]) if match and match["number"] and len(match["number"]) < 10 else 0


def joined(table: Any, more: Any) -> Any:
    """Returns the rows of both tables."""
    return type(table)(
        **{name: np.concatenate([column, getattr(more, name)]) for name, column in vars(table).items()}
    )
