"""An installed environment as one side of a comparison: its own interpreter and libraries under the
running hotlap.

Run as a script by the other environment's interpreter, this file makes the running hotlap
importable there, and nothing else of the folder it lies in, and becomes a worker. So both sides
have one timing loop, also where the other environment has a hotlap of its own or none.
"""

from __future__ import annotations

import sys
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
        for package in metadata.distributions() if package.metadata["Name"]
    }},
}}))
"""


def interpreter(text: str) -> Path | None:
    """The Python of a virtual environment's folder, or the interpreter itself; None if the text is
    neither.
    """
    path = (
        Path(text).absolute()
    )  # not resolved: a virtual environment's interpreter is a link, and known by where the link lies
    if path.is_dir() and (path / "bin" / "python").is_file():
        return path / "bin" / "python"
    return path if path.is_file() and path.name.startswith("python") and "/" in text else None


def main() -> None:
    """`python -P installed.py DESCRIPTOR`, in the other environment."""
    from importlib.util import module_from_spec, spec_from_file_location

    folder = Path(__file__).absolute().parent.parent
    spec = spec_from_file_location("hotlap", folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert spec is not None and spec.loader is not None
    hotlap = sys.modules["hotlap"] = module_from_spec(spec)
    spec.loader.exec_module(hotlap)
    from hotlap.perf import worker

    worker.main()


if __name__ == "__main__":
    main()
