"""A worker in another installed environment: `python -P bootstrap.py DESCRIPTOR`, run by that
environment's interpreter.

Makes the running hotlap importable there, and nothing else of the folder it lies in, and becomes a
worker. So both sides have one timing loop, also where the other environment has a hotlap of its own
or none.
"""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def main() -> None:
    """Serves as a worker until the parent is gone."""
    folder = Path(__file__).absolute().parents[2]
    spec = spec_from_file_location("hotlap", folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert spec is not None and spec.loader is not None
    hotlap = sys.modules["hotlap"] = module_from_spec(spec)
    spec.loader.exec_module(hotlap)
    from hotlap.perf.race import worker

    worker.main()


if __name__ == "__main__":
    main()
