"""Program: runs tests that need Triton's interpreter from the start of their process.

`python in_pytest.py FILE`
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import interpreter  # noqa: F401  # first: it decides what Triton is
import pytest

# hotlap's own plug-in is imported before pytest could rewrite its assertions.
QUIET = ["-q", "-p", "no:cacheprovider", "-W", "ignore:Module already imported"]
sys.exit(pytest.main([*QUIET, *sys.argv[1:]]))
