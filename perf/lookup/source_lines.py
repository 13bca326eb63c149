"""Where in a repository a workload is written, found by reading, without importing it."""

from __future__ import annotations

import ast
from pathlib import Path

from ..terms.verdict import Place
from . import plugins


def find(workload: str, root: Path = Path()) -> Place | None:
    """`package.module:name`, or a workload of ours by its name; None where the file is not below
    root.
    """
    module, _, name = workload.partition(":")
    ours = plugins.modules("hotlap.workloads").get(module)
    parts = (ours or module).split(".")
    if parts[0] == "hotlap":  # the repository's own folders stand at its top
        parts = parts[1:]
    for path in (Path(*parts).with_suffix(".py"), Path(*parts, "__init__.py")):
        if parts and (root / path).is_file():
            return Place(path.as_posix(), _line(root / path, "load" if ours else name))
    return None


def _line(path: Path, name: str) -> int:
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return 1
    return next(
        (one.lineno for one in body if isinstance(one, (ast.FunctionDef, ast.ClassDef)) and one.name == name),
        1,
    )
