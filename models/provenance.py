"""Where a checkpoint came from: versions, and the commit of hotlap's source where it is known."""

from __future__ import annotations

import functools
import platform
import subprocess
from pathlib import Path
from typing import Any

import lightning
import torch


@functools.cache
def provenance() -> dict[str, Any]:
    versions = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "lightning": str(lightning.__version__),
    }
    return {"versions": versions, "commit": source_commit()}


def source_commit() -> str | None:
    """The commit this file belongs to, with `-dirty` behind it where tracked files differ; None
    outside a git checkout of hotlap.

    An installed copy may lie inside somebody else's repository, so the file itself must be tracked
    there.
    """
    here = Path(__file__).resolve()
    try:
        subprocess.run(
            ["git", "ls-files", "--error-unmatch", here.name],
            cwd=here.parent,
            capture_output=True,
            check=True,
        )
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(
            command, cwd=here.parent, capture_output=True, check=True, text=True
        ).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
