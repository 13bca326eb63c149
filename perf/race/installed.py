"""An installed environment as one side of a comparison: its own interpreter and libraries under the
running hotlap (bootstrap.py).
"""

from __future__ import annotations

from pathlib import Path

VARIABLE = "HOTLAP_PYTHON"
NEEDED = ("msgspec", "numpy", "torch")
PROBE = f"""
import importlib.util, json, platform, sys
from importlib import metadata
print(json.dumps({{
    "prefix": sys.prefix,
    "python": platform.python_version(),
    "lacks": [name for name in {NEEDED!r} if importlib.util.find_spec(name) is None],
    "installed": {{
        package.metadata["Name"].lower(): package.version
        for package in reversed([*metadata.distributions()]) if package.metadata["Name"]
    }},
}}))
"""


def interpreter(text: str) -> Path | None:
    """The Python of a virtual environment's folder, or the interpreter itself; None if the text is
    neither.
    """
    # Not resolved: a virtual environment's interpreter is a link, known by where the link lies.
    path = Path(text).absolute()
    if path.is_dir() and (path / "bin" / "python").is_file():
        return path / "bin" / "python"
    return path if path.is_file() and path.name.startswith("python") and "/" in text else None
