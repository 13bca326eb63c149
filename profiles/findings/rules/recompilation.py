"""The compiler at work inside the profiled steps."""

import re

import numpy as np

from ...facts import intervals
from ...facts.facts import Facts
from ..fix import Fix

COMPILER = re.compile(
    r"torch/_dynamo/convert_frame\.py.*:"
    r" _compile|torch/_inductor/compile_fx\.py|compile_inner|triton/compiler/compiler\.py.*: compile"
)


def look(facts: Facts) -> Fix | None:
    trace = facts.trace
    which = trace.named(COMPILER)
    tables = [table.rows(which[table.name]) for table in (trace.frames, trace.notes, trace.operators)]
    spans = intervals.union(
        np.concatenate([table.start for table in tables]), np.concatenate([table.end for table in tables])
    )
    if not len(spans.start):
        return None
    idle = intervals.Intervals(facts.idle.start, facts.idle.start + facts.idle.length)
    lost = spans.length + idle.length - intervals.both(spans, idle).length
    names = {trace.names[code] for table in tables for code in table.name.tolist()}
    return Fix(
        "recompilation",
        "Compile before the loop, not in it",
        lost,
        (
            (
                f"the compiler ran {len(spans.start)} times for {spans.length / 1e6:.2f} ms, {lost / 1e6:.2f}"
                " ms of it while the GPU was idle"
            ),
        ),
        "warm up with every input shape, mark dynamic dimensions (torch._dynamo.mark_dynamic),"
        " TORCH_LOGS=recompiles names the guard",
        tuple(sorted(names)[:3]),
    )
