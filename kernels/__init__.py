"""Triton kernels for the operations that cost most memory traffic: one operation a file in ops/.

The package imports no other package of hotlap.
"""

from importlib import import_module
from typing import Any

# Public name -> the module that defines it, imported at first use: `import hotlap.kernels` needs
# neither torch nor triton.
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
