"""What code a training ran: files of the user's own, so that a change between two trainings of one
experiment is seen.
"""

from __future__ import annotations

import hashlib
import site
import sys
import sysconfig
from pathlib import Path


def own_sources() -> dict[str, str]:
    """Returns the files of all modules that this process has imported from the current folder or
    below it, by path, with their sha256; installed packages are left out.
    """
    here = Path.cwd().resolve()
    installed = [Path(each).resolve() for each in (sysconfig.get_path("stdlib"), *site.getsitepackages())]
    sources = {}
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        path = Path(name).resolve() if name else None
        if path is None or not path.is_relative_to(here) or any(map(path.is_relative_to, installed)):
            continue
        if path.is_file():
            sources[str(path.relative_to(here))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return dict(sorted(sources.items()))
