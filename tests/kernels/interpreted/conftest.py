"""These tests need Triton's interpreter from the start of their process.

test_interpreted.py runs them in one of their own; by hand it is TRITON_INTERPRET=1 pytest of this
folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]
if not collect_ignore_glob:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import interpreter  # noqa: F401
    import torch

    from hotlap.kernels import dispatch

    @pytest.fixture(autouse=True)
    def fresh() -> None:
        dispatch.reset()
        torch.manual_seed(0)
        torch.compiler.reset()

    @pytest.fixture
    def interpret() -> Iterator[None]:
        with dispatch.using("interpret"):
            yield
