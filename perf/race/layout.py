"""Where a forked worker's memory lies: not where every other fork of its server has it.

A fork inherits the addresses and the free holes of its server's heap, so all forked blocks of a job
would share one layout, and what it does to the speed would look like a property of the code
(Mytkowicz et al., ASPLOS 2009). Seen here: a stack of 62 small convolutions against one of 60 ran
at 0.97 to 1.01 of its time in three servers of eight and at 1.03 to 1.04 in the others, in every
block alike; fresh processes gave 1.03 in 24 blocks of 24. bench/fork_layout.py repeats it.
Allocations of random size that are never given back move all that follows (Curtsinger and Berger,
ASPLOS 2013).
"""

from __future__ import annotations

import ctypes
import mmap
import random

# Below glibc's threshold for mapping (128 KiB), so that they lie in the heap whatever the
# allocator's settings; 1 to 5 MiB of them.
CHUNK = 64 * 2**10
CHUNKS = (16, 80)
# Bytes of a cache line, and most lines by which the heap is moved: all offsets within 64 KiB.
LINE = 64
LINES = 1024
# Most pages by which mappings are moved.
PAGES = 256

_kept: list[mmap.mmap] = []


def move() -> None:
    """Moves what a forked worker will allocate; called once, before it loads anything."""
    chance = random.SystemRandom()
    malloc = ctypes.CDLL(None).malloc
    malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    for _ in range(chance.randint(*CHUNKS)):
        malloc(CHUNK)
    malloc(LINE * chance.randrange(1, LINES))
    _kept.append(mmap.mmap(-1, mmap.PAGESIZE * chance.randint(1, PAGES)))
