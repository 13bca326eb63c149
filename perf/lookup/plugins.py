"""Discovery: a plug-in's name is its file's name, in a folder of ours or in a package that an entry
point names.

Entry point groups: hotlap.backends, hotlap.metrics, hotlap.workloads. A file whose name starts with
_ is none.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable
from importlib import metadata
from types import ModuleType
from typing import cast

from ..terms.contract import Backend
from ..terms.reasons import Misuse

PERF = __package__.rpartition(".")[0]
OURS = {"hotlap.backends": f"{PERF}.backends", "hotlap.metrics": f"{PERF}.metrics"}


class Unknown(Misuse):
    """A name that is no plug-in; the message suggests the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known) or 'none'}"
        super().__init__(f"unknown {kind} {name!r}: {hint}")


def found(group: str) -> dict[str, str]:
    """Plug-in name -> full module name, without importing the plug-ins.

    Ours win over others of the same name.
    """
    packages = [point.value for point in metadata.entry_points(group=group)]
    if group in OURS:
        packages.append(OURS[group])
    modules = {}
    for package in packages:
        for info in pkgutil.iter_modules(_folders(package)):
            if not info.name.startswith("_"):
                modules[info.name] = f"{package}.{info.name}"
    return dict(sorted(modules.items()))


def _folders(package: str) -> list[str]:
    """Where a package's files lie; none where there is no such package (iter_modules(None) would
    list all of sys.path).
    """
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return []
    return list(spec.submodule_search_locations or ()) if spec else []


def load(group: str, name: str) -> ModuleType:
    """Imports one plug-in. Raises Unknown."""
    modules = found(group)
    if name not in modules:
        raise Unknown(group.rpartition(".")[2].removesuffix("s"), name, modules)
    return importlib.import_module(modules[name])


def backend(name: str) -> Backend:
    return cast(Backend, load("hotlap.backends", name))
