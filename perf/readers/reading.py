"""Reads a results file of any tool, by what it holds and not by its name.

Each tool is a module with TOOL, its name; MARK, what shows that a damaged file is of it;
`claims(contents)`, whether a file is of it; and `read(contents)`, which returns a side for each run
that the file holds, oldest first.
"""

from __future__ import annotations

import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from ..terms import stored
from ..terms.reasons import Unreadable
from . import (
    asv,
    criterion,
    github_action_benchmark,
    go_test,
    google_benchmark,
    hotlap,
    hyperfine,
    pyperf,
    pytest_benchmark,
)
from .contents import Contents, contents
from .side import UNREADABLE, Side

# In the order in which they are asked.
READERS = (
    hotlap,
    pytest_benchmark,
    google_benchmark,
    pyperf,
    hyperfine,
    asv,
    criterion,
    github_action_benchmark,
    go_test,
)
TOOLS = ", ".join(reader.TOOL for reader in READERS)


def read(path: Path) -> list[Side]:
    """Returns the runs that a results file holds, oldest first, whoever wrote it.

    Raises Misuse (no such file) or Unreadable (exit 4) with one line.
    """
    file = contents(path)
    for reader in READERS:
        if reader.claims(file):
            try:
                sides = reader.read(file)
                known = [each for side in sides for each in side.cases.values()]
                if known and all(each.status == UNREADABLE for each in known):
                    raise Unreadable(f"{known[0].case}: {known[0].reason}")
                digest = sha256(file.text).hexdigest()
                return [replace(side, digests=(digest,)) for side in sides]
            except (ValueError, OverflowError, *stored.UNDECODABLE) as error:
                why = stored.line(error).removeprefix(f"{path}: ")
                raise Unreadable(f"{path}: {reader.TOOL}: {why}") from None
    raise Unreadable(f"{path}: {_unknown(file)}")


def _unknown(file: Contents) -> str:
    """Returns why nobody claims a file: damaged, and whose it looks like; or none that is known."""
    likely = next((reader.TOOL for reader in READERS if re.search(reader.MARK, file.start)), None)
    if likely and file.problem:
        return f"damaged results of {likely}: {file.problem}"
    if not file.text.strip():
        return "an empty file, no results"
    return f"no results of a tool that is known ({TOOLS})" + (f": {file.problem}" if file.problem else "")
