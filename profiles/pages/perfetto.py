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
from ...perf.terms.reasons import Misuse
from ..findings.review import Review
from ..tables.events import Event, Events, text_of
from ..tables.kineto import GPU, nanoseconds
from ..tables.trace import Column, Gpu

# The longest gaps that are shown: the viewer stays quick.
GAPS = 10_000
# What their track is called.
TRACK = "hotlap: why the GPU was idle"


class Lost(Exception):
    """The export does not hold what the trace does: a defect of hotlap."""


def write(review: Review, path: Path) -> dict[str, int]:
    """Writes the export; returns how many events were copied, moved to another lane, and added.

    Raises OSError, Lost, and Misuse for a profile that has no events in time.
    """
    if review.trace.source == "tensorrt":
        raise Misuse(f"{review.trace.path}: layers with their lengths, which have no place in time to show")
    source = Events(Path(review.trace.path))
    counts = {"copied": 0, "moved": 0, "added": 0}
    # Those that their process tells are no event of a GPU in the file, and stay where they are.
    read = review.facts.as_read
    gpu, row = read.gpu.rows(slice(0, len(read.gpu) - read.by_label)), 0
    lane = lanes(gpu)
    with files.output(path) as file:
        file.write(b'{"traceEvents": [\n')
        separate = b""
        for texts in source.texts():
            for raw in texts:
                text, event = bytes(raw), source.alone(bytes(raw))
                if event is None:
                    continue  # as when the trace was read
                if row < len(gpu) and times(event) == (gpu.start[row], gpu.dur[row]):
                    if lane[row]:
                        text = on_lane(text, event, int(lane[row]))
                        counts["moved"] += 1
                    row += 1
                counts["copied"] += 1
                file.write(separate + text)
                separate = b",\n"
        for more in added(review):
            file.write(separate + msgspec.json.encode(more))
            separate = b",\n"
            counts["added"] += 1
        put_header(file, source.header)
        if counts["copied"] != review.trace.events or row != len(gpu):
            raise Lost(
                f"{path}: {review.trace.events} events went in, {len(gpu)} of the GPU, and {counts['copied']}"
                f" came out, {row} of the GPU"
            )
    return counts


def lanes(gpu: Gpu) -> Column:
    """Returns a lane of its stream for each GPU event: the first that is free when it begins.

    It is 0 where none overlaps.
    """
    lane_of = np.zeros(len(gpu), np.int64)
    ends: dict[tuple[int, int], list[int]] = {}
    for row in np.lexsort((gpu.end, gpu.start)).tolist():
        own = ends.setdefault((int(gpu.device[row]), int(gpu.stream[row])), [])
        lane = next((number for number, last in enumerate(own) if last <= gpu.start[row]), len(own))
        own[lane : lane + 1] = [int(gpu.start[row] + gpu.dur[row])]
        lane_of[row] = lane
    return lane_of


def times(event: Event) -> tuple[int, int] | None:
    """Returns start and length of a GPU event in ns; None of all others."""
    if event.ph != "X" or event.cat not in GPU:
        return None
    try:
        return nanoseconds(bytes(event.ts)), nanoseconds(bytes(event.dur))
    except (ValueError, ArithmeticError):
        return None


def on_lane(text: bytes, event: Event, lane: int) -> bytes:
    whole = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    whole["tid"] = msgspec.Raw(msgspec.json.encode(f"{text_of(event.tid)} overlap {lane}"))
    return msgspec.json.encode(whole)


def added(review: Review) -> Iterator[dict[str, Any]]:
    """Yields the name of the track, and its gaps, each with what filled it."""
    if review.bound is None:
        return
    yield {"ph": "M", "name": "process_name", "pid": TRACK, "tid": 0, "args": {"name": TRACK}}
    start, _ = review.facts.wall
    for gap in review.facts.largest_gaps(GAPS):
        filled = {label: f"{ns / 1000:.3f} us" for label, ns in gap.filled[:8]}
        label = gap.filled[0][0] if gap.filled else gap.blame
        yield {
            "ph": "X",
            "cat": "hotlap",
            "name": f"{gap.blame}: {label}",
            "pid": TRACK,
            "tid": 0,
            "ts": microseconds(start + gap.start),
            "dur": microseconds(gap.length),
            "args": {"then": gap.ends, **filled},
        }


def microseconds(ns: int) -> msgspec.Raw:
    """Returns microseconds as text with three places: a double could not hold them."""
    sign, size = ("-" if ns < 0 else ""), abs(ns)
    return msgspec.Raw(f"{sign}{size // 1000}.{size % 1000:03d}".encode())


def put_header(file: IO[bytes], header: dict[str, Any]) -> None:
    """Writes what stood around the events of the original."""
    file.write(b"\n]")
    for name, value in header.items():
        file.write(b",\n" + msgspec.json.encode(name) + b": " + msgspec.json.encode(value))
    file.write(b"}\n")
