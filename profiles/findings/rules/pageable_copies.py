"""Copies from or to memory that the operating system may move."""

import numpy as np

from ...facts.facts import Facts
from ...tables.trace import Kind
from ..fix import Fix


def look(facts: Facts) -> Fix | None:
    line, names = facts.line, facts.trace.names
    pageable = np.array(["Pageable" in name for name in names], dtype=bool)
    rows = line.gpu.rows((line.gpu.kind == Kind.MEMCPY) & pageable[line.gpu.name])
    if not len(rows):
        return None
    size = int(np.sum(rows.bytes[rows.bytes > 0]))
    lost = int(np.sum(rows.dur))
    rate = f", {size / lost:.1f} GB/s" if lost else ""
    return Fix(
        "pageable_copies",
        "Pin the memory that is copied",
        lost,
        (f"{len(rows)} pageable copies, {size / 1e6:.1f} MB in {lost / 1e6:.2f} ms{rate}",),
        "DataLoader(pin_memory=True) and .to(device, non_blocking=True): twice as fast or more, and behind"
        " the computation",
        tuple(sorted({names[code] for code in rows.name})),
    )
