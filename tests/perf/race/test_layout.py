"""Forks of one process have their memory in different places."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FORKS = """
import ctypes, os, sys
from hotlap.perf.race import layout

malloc = ctypes.CDLL(None).malloc
malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
for _ in range(8):
    if os.fork() == 0:
        if sys.argv[1] == "moved":
            layout.move()
        print(malloc(100_000), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.parametrize(("how", "fewest", "most"), [("moved", 5, 8), ("as forked", 1, 1)])
@pytest.mark.parametrize("allocator", [{}, {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000"}])
def test_the_heap_of_each_fork_lies_elsewhere(
    how: str, fewest: int, most: int, allocator: dict[str, str]
) -> None:
    """As they are forked all eight get the same address: the defect that this is there to mend.

    Moved by 16 to 80 chunks, two of eight meet by chance in one try of three.
    """
    done = subprocess.run(
        [sys.executable, "-c", FORKS, how],
        env={**os.environ, **allocator},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert fewest <= len(set(done.stdout.split())) <= most
