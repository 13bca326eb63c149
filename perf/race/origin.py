"""Where the code that a worker runs comes from: what is installed here, or another revision's
worktree.

An editable install names the working copy, so a worktree beside it would never be imported: the
worktree goes in front of everything, also of hotlap's own other packages if it is hotlap that is
compared. hotlap.perf itself, the timing loop above all, is the running one on both sides.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from . import installed

VARIABLE = "HOTLAP_ORIGIN"


@dataclass(frozen=True)
class Origin:
    """Where the code of one side comes from."""

    # The side's name; its workers share no fork server with the other's.
    name: str = ""
    # An absolute worktree; None is what is installed here.
    folder: Path | None = None
    # The interpreter of another installed environment; None is the running one.
    python: Path | None = None

    def variables(self) -> dict[str, str]:
        values = {"HOTLAP_SIDE": self.name or None, VARIABLE: self.folder, installed.VARIABLE: self.python}
        return {name: str(value) for name, value in values.items() if value is not None}


HERE = Origin()


def enter() -> None:
    """Puts the worktree that the environment names in front of everything; called in a worker
    before it imports anything of the user's.
    """
    folder = os.environ.get(VARIABLE)
    if folder is None:
        return
    paths = [path for path in (folder, os.path.join(folder, "src")) if os.path.isdir(path)]
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])
    os.chdir(folder)
    if os.path.isdir(os.path.join(folder, "hotlap")):
        import hotlap

        hotlap.__path__.insert(0, os.path.join(folder, "hotlap"))


def loaded(repository: Path, worktree: Path) -> tuple[dict[str, str], list[str]]:
    """What this process has loaded: file in the worktree -> a hash of its code, and files that came
    from the repository's working copy instead.

    hotlap.perf and what is installed inside the repository (a virtual environment) belong to
    neither.
    """
    inside, outside, ours = {}, [], Path(__file__).resolve().parents[1]
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        # torch has modules with made-up names of files.
        if not file or not os.path.isabs(file) or not os.path.isfile(file):
            continue
        path = Path(file).resolve()
        if path.is_relative_to(ours) or path == ours.parent / "hotlap" / "__init__.py":
            continue
        if path.is_relative_to(worktree):
            inside[path.relative_to(worktree).as_posix()] = code_hash(path)
        elif path.is_relative_to(repository) and "site-packages" not in path.parts:
            outside.append(path.relative_to(repository).as_posix())
    return dict(sorted(inside.items())), sorted(outside)


def code_hash(path: Path) -> str:
    """Returns the SHA-256 of what a Python file says, its comments and layout apart; of any other
    file, that of its bytes.
    """
    content = path.read_bytes()
    with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):  # no Python
        content = ast.dump(ast.parse(content)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(content).hexdigest()
