"""Triton kernels for the operations that cost most memory traffic: one operation a file in ops/.

Imports nothing of ours.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "AdamW": "adamw",
    "TritonKernels": "callback",
    "function": "library",
    "replace": "surgery",
    "restore": "surgery",
    "using": "dispatch",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hotlap.kernels' has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
