"""On a CPU: Python and the dispatch of many small operators, beside the work itself."""

from ...facts.facts import Facts
from ..fix import Fix

ON_CPU = True


def look(facts: Facts) -> Fix | None:
    lost, steps = facts.on_cpu["framework"], len(facts.steps)
    if not lost or not steps or facts.trace.by_node:
        return None
    return Fix(
        "framework_bound",
        "Dispatch fewer operators: torch.compile or a runtime that owns the graph",
        lost,
        (
            (
                f"{len(facts.trace.operators) / steps:,.0f} operators a step; {lost / steps / 1e3:.0f} us a"
                " step go into Python, dispatch and allocation beside them"
            ),
        ),
        "hotlap run MODEL measures compile, onnxruntime and openvino against eager; so does a larger batch",
    )
