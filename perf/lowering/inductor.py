"""What every compilation by Inductor needs once a process, done when this module is imported: its
compiler, and the hash of torch's own sources.

The hash is part of each key of Inductor's cache; reading 3,000 files for it takes most of a second.
A fork server that imports this module saves both for its workers.
"""

from __future__ import annotations

from torch._inductor import compile_fx  # noqa: F401  # the compiler, which loads what it needs
from torch._inductor.codecache import torch_key

torch_key()
