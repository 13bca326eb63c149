"""What a workload is made of, as one number: what was built from the same need not be built again.

It holds the weights, the example inputs and those that int8 takes its ranges from, what forward
calls its inputs and which axes are free, the module's own description, the source files of its
classes, and those of all modules that are loaded and not installed. A number that forward alone
knows, such as a factor in an attribute, is none of these; it shows in the reference outputs
(oracle/reference.py), which a key has besides.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..terms.case import Workload

if TYPE_CHECKING:
    import torch


def fingerprint(workload: Workload) -> str:
    """Returns a SHA-256, in hexadecimal, of all that is built from."""
    digest = hashlib.sha256()
    described = (workload.names, workload.free, workload.batched, repr(workload.module))
    digest.update(repr(described).encode())
    for path in sources(workload.module):
        digest.update(path.read_bytes())
    for name, tensor in tensors(workload):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(stored(tensor))
    return digest.hexdigest()


def sources(module: torch.nn.Module) -> list[Path]:
    """Returns the files in which the classes of a module and of its parts are written, and the
    user's own modules, which a forward may call.
    """
    files = {Path(str(loaded.__file__)) for loaded in [*sys.modules.values()] if own(loaded)}
    for kind in {type(part) for part in module.modules()}:
        try:
            files.add(Path(inspect.getfile(kind)))
        except (TypeError, OSError):  # made while running: it has no file
            continue
    return sorted(path for path in files if path.is_file())


def own(loaded: ModuleType) -> bool:
    """Returns whether a module is a file that is neither installed nor hotlap's."""
    file = getattr(loaded, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py"):
        return False
    places = {sys.prefix, sys.base_prefix, str(Path(inspect.getfile(Workload)).parents[2])}
    return not any(Path(file).is_relative_to(place) for place in places)


def tensors(workload: Workload) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields each tensor of a workload with a name."""
    import torch

    for name, value in workload.module.state_dict().items():
        if isinstance(value, torch.Tensor):
            yield name, value
    for kind, values in (("input", workload.inputs), ("calibration", workload.calibration or ())):
        for number, value in enumerate(values):
            yield f"{kind} {number}", value


def stored(tensor: torch.Tensor) -> Any:
    """Returns a tensor's bytes."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()
