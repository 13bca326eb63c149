"""Finds plug-ins: a plug-in's name is its file's name, in a folder of ours or in a package that an
entry point names.

Entry point groups: hotlap.backends, hotlap.metrics, hotlap.workloads. A file whose name starts with
_ is no plug-in.
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

# The package of our own plug-in folders, by whatever name hotlap was imported.
PERF = __package__.rpartition(".")[0]
# Entry point group -> our own package of such plug-ins (models names its own by an entry point).
OURS = {"hotlap.backends": f"{PERF}.backends", "hotlap.metrics": f"{PERF}.metrics"}


class Unknown(Misuse):
    """A name that is no plug-in; the message suggests the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known) or 'none'}"
        super().__init__(f"unknown {kind} {name!r}: {hint}")


def modules(group: str) -> dict[str, str]:
    """Returns plug-in name -> full module name, sorted by name, without importing the plug-ins.

    Ours win over others of the same name.
    """
    packages = [point.value for point in metadata.entry_points(group=group)]
    if group in OURS:
        packages.append(OURS[group])
    by_name = {}
    for package in packages:
        for info in pkgutil.iter_modules(_folders(package)):
            if not info.name.startswith("_"):
                by_name[info.name] = f"{package}.{info.name}"
    return dict(sorted(by_name.items()))


def _folders(package: str) -> list[str]:
    """Returns the folders in which a package's files lie; none where there is no such package
    (iter_modules(None) would list all of sys.path).
    """
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return []
    return list(spec.submodule_search_locations or ()) if spec else []


def load(group: str, name: str) -> ModuleType:
    """Imports the plug-in of that name. Raises Unknown."""
    available = modules(group)
    if name not in available:
        raise Unknown(group.rpartition(".")[2].removesuffix("s"), name, available)
    return importlib.import_module(available[name])


def backend(name: str) -> Backend:
    """Imports the backend of that name. Raises Unknown."""
    return cast(Backend, load("hotlap.backends", name))
