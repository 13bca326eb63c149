"""From a file to a trace, by what is in it."""

from __future__ import annotations

from pathlib import Path

from . import kineto, tensorrt
from .trace import Trace

# Bytes from which a layer profile of TensorRT is told.
START = 65536


def read(path: Path) -> Trace:
    """Reads a trace of torch, ONNX Runtime or OpenVINO, or a layer profile of TensorRT.

    Raises Unreadable (with a remedy where there is one) and OSError.
    """
    with path.open("rb") as file:
        start = file.read(START)
    return tensorrt.read(path) if tensorrt.recognised(start) else kineto.read(path)
