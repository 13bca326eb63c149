"""hotlap: makes a trained model as fast as it can be, proves that it stayed right, and keeps it
fast.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Case": "perf.case",
    "Evaluation": "perf.case",
    "Plan": "perf.case",
    "Profile": "profiles.callback",
    "Result": "perf.result",
    "TritonKernels": "kernels.callback",
    "Workload": "perf.case",
    "cases": "perf.pytest_plugin",
    "read": "perf.result",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hotlap' has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
