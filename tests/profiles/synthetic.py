"""Traces as torch's profiler writes them, made event by event, so that what is in them is known."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

HOST, GPU = 100, 0


def event(
    cat: str, name: str, start: float, dur: float, *, pid: Any = HOST, tid: Any = HOST, **args: Any
) -> dict[str, Any]:
    """Microseconds, as in the file."""
    return {
        "ph": "X",
        "cat": cat,
        "name": name,
        "pid": pid,
        "tid": tid,
        "ts": start,
        "dur": dur,
        "args": {key.replace("_", " "): value for key, value in args.items()},
    }


def operator(name: str, start: float, dur: float, **args: Any) -> dict[str, Any]:
    return event("cpu_op", name, start, dur, **args)


def call(name: str, start: float, dur: float, correlation: int = 0) -> dict[str, Any]:
    return event("cuda_runtime", name, start, dur, correlation=correlation)


def kernel(
    name: str,
    start: float,
    dur: float,
    correlation: int = 0,
    stream: int = 7,
    cat: str = "kernel",
    **args: Any,
) -> dict[str, Any]:
    return event(
        cat, name, start, dur, pid=GPU, tid=stream, device=0, stream=stream, correlation=correlation, **args
    )


def launched(
    name: str, called: float, start: float, dur: float, correlation: int, call_dur: float = 2, **more: Any
) -> list[dict[str, Any]]:
    """A kernel with the call that launched it."""
    return [
        call("cudaLaunchKernel", called, call_dur, correlation),
        kernel(name, start, dur, correlation, **more),
    ]


def step(number: int, start: float, dur: float) -> dict[str, Any]:
    return event("user_annotation", f"ProfilerStep#{number}", start, dur)


def written(
    path: Path, events: list[dict[str, Any]], major: int = 8, name: str = "NVIDIA A100", packed: bool = False
) -> Path:
    text = json.dumps(
        {
            "schemaVersion": 1,
            "deviceProperties": [{"id": 0, "name": name, "computeMajor": major}],
            "traceEvents": events,
            "traceName": "made",
        }
    ).encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    return path
