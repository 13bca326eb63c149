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
    """The versions of Python, torch and Lightning, and the commit of hotlap's source or None."""
    versions = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "lightning": str(lightning.__version__),
    }
    return {"versions": versions, "commit": source_commit()}


def source_commit() -> str | None:
    """The commit that this file belongs to, with `-dirty` behind it where tracked files differ.

    None outside a git checkout of hotlap. An installed copy may lie inside somebody else's
    repository, so the file itself must be tracked there.
    """
    try:
        _git("ls-files", "--error-unmatch", "--", Path(__file__).name)
        return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    """What git prints in this file's folder; raises CalledProcessError where it refuses."""
    folder = Path(__file__).resolve().parent
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=True, text=True)
    return done.stdout.strip()
