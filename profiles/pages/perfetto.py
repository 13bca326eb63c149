"""A trace for ui.perfetto.dev (or chrome://tracing) that shows all of it: every event as it was,
GPU events that overlap on their stream on lanes of their own (the viewer would drop or cut them),
and one more track with the idle gaps (the 10,000 longest) and what the host did in them. What goes
in comes out; that is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from ...perf.terms import files
from ..findings.review import Review
from ..tables.events import Event, Events
from ..tables.kineto import GPU, nanoseconds
from ..tables.trace import Column, Gpu

GAPS = 10_000
TRACK = "hotlap: why the GPU was idle"


class Lost(Exception):
    """The export does not hold what the trace does. Our own fault."""


def write(found: Review, path: Path) -> dict[str, int]:
    """Returns how many events were copied, how many of them to another lane, and how many added.

    Raises OSError, Lost.
    """
    source = Events(Path(found.trace.path))
    counts = {"copied": 0, "moved": 0, "added": 0}
    gpu, row = found.trace.gpu, 0
    lane = lanes(gpu)
    with files.whole(path) as file:
        file.write(b'{"traceEvents": [\n')
        separate = b""
        for texts in source.texts():
            for raw in texts:
                text, event = bytes(raw), source.alone(bytes(raw))
                if event is not None and row < len(gpu) and times(event) == (gpu.start[row], gpu.dur[row]):
                    if lane[row]:
                        text = on_lane(text, event, int(lane[row]))
                        counts["moved"] += 1
                    row += 1
                counts["copied"] += 1
                file.write(separate + text)
                separate = b",\n"
        for more in added(found):
            file.write(separate + msgspec.json.encode(more))
            separate = b",\n"
            counts["added"] += 1
        put_header(file, source.header)
        if counts["copied"] != found.trace.events or row != len(gpu):
            raise Lost(
                f"{path}: {found.trace.events} events went in, {len(gpu)} of the GPU, and {counts['copied']}"
                f" came out, {row} of the GPU"
            )
    return counts


def lanes(gpu: Gpu) -> Column:
    """A lane for each GPU event of its stream, 0 where none overlaps: the first that is free when
    it begins.
    """
    found = np.zeros(len(gpu), np.int64)
    ends: dict[tuple[int, int], list[int]] = {}
    for row in np.lexsort((gpu.end, gpu.start)).tolist():
        own = ends.setdefault((int(gpu.device[row]), int(gpu.stream[row])), [])
        lane = next((at for at, last in enumerate(own) if last <= gpu.start[row]), len(own))
        own[lane : lane + 1] = [int(gpu.start[row] + gpu.dur[row])]
        found[row] = lane
    return found


def times(event: Event) -> tuple[int, int] | None:
    """Start and length of a GPU event; None of all others."""
    if event.ph != "X" or event.cat not in GPU:
        return None
    try:
        return nanoseconds(bytes(event.ts)), nanoseconds(bytes(event.dur))
    except (ValueError, ArithmeticError):
        return None


def on_lane(text: bytes, event: Event, lane: int) -> bytes:
    whole = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    whole["tid"] = msgspec.Raw(msgspec.json.encode(f"{event.tid} overlap {lane}"))
    return msgspec.json.encode(whole)


def added(found: Review) -> Iterator[dict[str, Any]]:
    """The track of gaps, each with what filled it, and its name."""
    if found.bound is None:
        return
    yield {"ph": "M", "name": "process_name", "pid": TRACK, "tid": 0, "args": {"name": TRACK}}
    start = found.facts.line.start
    for gap in found.facts.largest_gaps(GAPS):
        filled = {label: f"{ns / 1000:.3f} us" for label, ns in gap.filled[:8]}
        told = gap.filled[0][0] if gap.filled else gap.blame
        yield {
            "ph": "X",
            "cat": "hotlap",
            "name": f"{gap.blame}: {told}",
            "pid": TRACK,
            "tid": 0,
            "ts": microseconds(start + gap.start),
            "dur": microseconds(gap.length),
            "args": {"then": gap.ends, **filled},
        }


def microseconds(ns: int) -> msgspec.Raw:
    """As text with three places: a double could not hold it."""
    sign, size = ("-" if ns < 0 else ""), abs(ns)
    return msgspec.Raw(f"{sign}{size // 1000}.{size % 1000:03d}".encode())


def put_header(file: IO[bytes], header: dict[str, Any]) -> None:
    """What stood around the events of the original."""
    file.write(b"\n]")
    for name, value in header.items():
        file.write(b",\n" + msgspec.json.encode(name) + b": " + msgspec.json.encode(value))
    file.write(b"}\n")
