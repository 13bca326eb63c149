"""Libraries that only some data need, and that an extra of hotlap's brings.

A data module imports them where it reads, so that all else starts and runs without them.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from ...perf.terms.reasons import Misuse


def library(module: str, package: str) -> ModuleType:
    """Imports a module of a package of the extra `data`.

    Raises Misuse, which names the package and how to install it, where it is not here.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise Misuse(
            f"these data need {package}, which is not installed: pip install 'hotlap[data]'"
        ) from None
