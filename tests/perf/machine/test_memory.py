"""Peak memory by phase, in a process of its own: the peak of this one is whatever earlier tests
made of it.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hotlap.perf.machine import memory

MIB = 2**20
CHILD = f"""
import json
from hotlap.perf.machine import memory
peaks = [memory.peak_bytes()]
block = bytearray(200 * {MIB})
peaks.append(memory.peak_bytes())
del block
peaks.append(memory.peak_bytes())
memory.reset()
peaks.append(memory.peak_bytes())
block = bytearray(50 * {MIB})
peaks.append(memory.peak_bytes())
print(json.dumps(peaks))
"""


def test_the_peak_rises_stays_and_starts_again_at_a_reset() -> None:
    before, full, freed, reset, again = json.loads(subprocess.check_output([sys.executable, "-c", CHILD]))
    assert full - before == pytest.approx(200 * MIB, abs=4 * MIB)
    assert freed == pytest.approx(full, abs=4 * MIB)
    assert reset == pytest.approx(before, abs=4 * MIB)
    assert again - reset == pytest.approx(50 * MIB, abs=4 * MIB)


def test_there_is_no_gpu_memory_on_the_cpu() -> None:
    assert memory.gpu_bytes("cpu") == {}


@pytest.mark.parametrize(
    ("words", "exhausted"),
    [
        ("CUDA out of memory. Tried to allocate 20.00 MiB", True),
        ("CUDA error: out of memory", True),
        ("std::bad_alloc", True),
        ("Failed to allocate memory for requested buffer of size 1024", True),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_memory_that_ran_out_in_the_words_of_each_library(words: str, exhausted: bool) -> None:
    assert memory.exhausted(RuntimeError(words)) is exhausted
