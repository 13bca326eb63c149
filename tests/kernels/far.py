"""Child process: an operation on rows that lie further apart than 2^31 elements.

They are in memory that is reserved and never touched but for them. `python far.py [OLD NEW]`
"""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import torch
from prove import operation, rms  # first: it loads the interpreter

# Elements from a row to the next; three rows pass 2^31.
STRIDE = 1 << 30
ROWS = 3
COLUMNS = 16
# mmap(2); Python 3.11 has no name for it.
MAP_NORESERVE = 0x4000
memory = mmap.mmap(-1, 2 * STRIDE * ROWS, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
x = torch.frombuffer(memory, dtype=torch.float16).view(ROWS, STRIDE)[:, :COLUMNS]
x.copy_(torch.randn(ROWS, COLUMNS))
op = operation("rms_norm", *sys.argv[1:])
weight = torch.randn(COLUMNS, dtype=torch.float16)
y, scale = op.forward(x, weight)
exact = op.reference(x.double(), weight.double())
assert rms(y.double() - exact) < 1e-2 * rms(exact), "rows far apart are wrong"
print("right")
