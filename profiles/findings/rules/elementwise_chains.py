"""Elementwise kernels one after the other, each of which reads and writes all of its tensors."""

import re

import numpy as np

from ...facts.facts import Facts
from ...tables.trace import Kind
from ..fix import Fix

ELEMENTWISE = re.compile(r"elementwise_kernel")


def look(facts: Facts) -> Fix | None:
    line, names = facts.line, facts.trace.names
    kernels = line.gpu.rows(line.gpu.kind == Kind.KERNEL)
    if not len(kernels):
        return None
    which = facts.trace.named(ELEMENTWISE)
    order = np.lexsort((kernels.start, kernels.stream))
    own = which[kernels.name[order]]
    same = kernels.stream[order][1:] == kernels.stream[order][:-1]
    begins = own & np.concatenate([[True], ~(own[:-1] & same)])
    chain = np.cumsum(begins)[own]
    dur = kernels.dur[order][own]
    if not len(dur):
        return None
    total = np.zeros(chain.max() + 1, np.int64)
    longest = np.zeros(chain.max() + 1, np.int64)
    count = np.bincount(chain)
    np.add.at(total, chain, dur)
    np.maximum.at(longest, chain, dur)
    chains = count >= 2
    lost = int(np.sum((total - longest)[chains]))
    if not lost:
        return None
    return Fix(
        "elementwise_chains",
        "Fuse elementwise kernels",
        lost,
        (
            (
                f"{int(np.sum(chains)):,} chains of {int(np.sum(count[chains])):,} elementwise kernels on one"
                f" stream take {int(np.sum(total[chains])) / 1e6:.2f} ms; fused, each could take its longest"
                " kernel's time"
            ),
        ),
        "torch.compile fuses them; or a fused operator (optimizer fused=True, a Triton kernel)",
        tuple(names[code][:100] for code in np.unique(kernels.name[order][own])[:3]),
    )
