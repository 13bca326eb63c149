"""Finds where in a repository a workload is written, by reading, without importing it."""

from __future__ import annotations

import ast
from pathlib import Path

from ..terms.verdict import Place
from . import plugins


def find(workload: str, root: Path = Path()) -> Place | None:
    """Returns the file and line of a workload; None where the file is not below root.

    workload: `package.module:name`, or one of ours by its name.
    """
    module, _, name = workload.partition(":")
    ours = plugins.modules("hotlap.workloads").get(module)
    parts = (ours or module).split(".")
    if parts[0] == "hotlap" and parts[1:]:  # the repository's own folders stand at its top
        parts = parts[1:]
    if not all(parts):  # :name and a..b are no modules
        return None
    for path in (Path(*parts).with_suffix(".py"), Path(*parts, "__init__.py")):
        if (root / path).is_file():
            return Place(path.as_posix(), _line(root / path, "load" if ours else name))
    return None


def _line(path: Path, name: str) -> int:
    """Returns the line of the function or class of that name, 1 where it is not to be seen."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return 1
    definitions = (node for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef)))
    return next((node.lineno for node in definitions if node.name == name), 1)
