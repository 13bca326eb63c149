"""Capturing a profile: a backend's own profiler over some calls, what it adds to a call, and one
file that says both.

The file is what the library's profiler writes (torch: Kineto's JSON; ONNX Runtime: its JSON), with
a section `hotlap` in front of it: the case, the schedule, and the time of a call without and with
the profiler, so that a reader knows how far the figures are from the truth.
"""

from __future__ import annotations

import gzip
import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from ..terms import files

# 1 (0.1.0): first version of the section `hotlap`.
SCHEMA = 1
COMPRESSION = 5


def seal(raw: Path, file: Path, about: dict[str, Any]) -> None:
    """Moves a profile to its place, with `about` in front; gzip where the name ends in .gz.

    A bare list becomes traceEvents. Raises OSError.

    A reader never sees half of it.
    """
    head = b'{"hotlap": ' + msgspec.json.encode({"schema": SCHEMA, **about}) + b",\n"
    with raw.open("rb") as source, files.output(file) as plain, packed(file, plain) as sink:
        start = source.read(1)
        while start.isspace():
            start = source.read(1)
        sink.write(head if start == b"{" else head + b'"traceEvents": [')
        shutil.copyfileobj(source, sink, 1 << 20)
        if start == b"[":
            sink.write(b"}\n")
    raw.unlink()


def packed(file: Path, plain: BinaryIO) -> AbstractContextManager[BinaryIO | gzip.GzipFile]:
    """What is written to, packed where the file's name ends in .gz."""
    if file.name.endswith(".gz"):
        return gzip.open(plain, "wb", COMPRESSION)
    return nullcontext(plain)
