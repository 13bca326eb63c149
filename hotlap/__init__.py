"""hotlap makes a trained model as fast as it can be, proves that it stayed right and keeps it fast.

The public names are imported when they are first used, so that importing hotlap loads no library.
"""

from importlib import import_module
from typing import Any

# Public name -> the module that holds it.
_PUBLIC = {
    "Case": "perf.terms.case",
    "Evaluation": "perf.terms.case",
    "OnnxFile": "perf.lookup.onnx_file",
    "OptimizeAfterFit": "perf.commands.after_fit",
    "Plan": "perf.terms.case",
    "Profile": "profiles.recording.callback",
    "Result": "perf.terms.result",
    "TritonKernels": "kernels.callback",
    "Workload": "perf.terms.case",
    "cases": "perf.commands.pytest_plugin",
    "open_artefact": "perf.artefacts.opening",
    "optimize": "perf.commands.optimizing",
    "read": "perf.terms.result",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Imports a public name. Raises AttributeError."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hotlap' has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
