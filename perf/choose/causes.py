"""Why each candidate was not chosen: one cause, with the figure that shows it, from placement and
counters of what ran, or the reason why nothing ran.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..lookup.cases import LIBRARY_DEFAULTS
from ..terms.result import Result
from ..terms.units import scaled
from .wishes import Wish, shown_value

# Page faults a call from which on they are the cause: two hundred take as long as a small model.
MANY_FAULTS = 100
# Counters that say by themselves that work is done that nobody asked for, in words.
HARMS = {
    "graph_breaks": "graph breaks, between which Python runs",
    "recompiles": "recompilations",
    "nodes_elsewhere": "nodes ran elsewhere than asked",
    "memcpy_nodes": "copies between devices in each call",
    "casts_inserted": "casts that the runtime put in",
    "nodes_other_precision": "products ran in another precision than asked",
    "layout_conversions": "conversions of memory layout",
    "spills": "registers spilled",
}
# What a backend runs in a call, in words.
KINDS = {"operators": "operators of aten", "generated_kernels": "generated kernels", "nodes": "nodes"}


def cause(result: Result, chosen: Result | None, wish: Wish) -> str:
    """Returns why a result was not chosen."""
    if "latency" not in result.metrics:
        return str(result.reason) if result.reason is not None else "it has no time"
    for bound in wish.bounds:
        if bound.met(result) is False:
            value = bound.quantity.of(result)
            assert value is not None
            return f"breaks {bound}: {shown_value(bound.quantity, value.centre)}"
    return next(evidence(result, chosen), "slower, and nothing that was counted says why: hotlap profile")


def evidence(result: Result, chosen: Result | None) -> Iterator[str]:
    """Yields causes, the plainest first."""
    counters = result.placement.counters if result.placement is not None else {}
    ours = chosen.placement.counters if chosen is not None and chosen.placement is not None else {}
    for name, words in HARMS.items():
        if counters.get(name, 0) > ours.get(name, 0):
            yield f"{counters[name]} {words}"
    if result.case.option("threads", "all") != "all" and (chosen is None or one_thread_less(result, chosen)):
        yield f"{result.case.option('threads', 'all')} thread(s) where the others have {result.plan.threads}"
    if result.disturbance is not None and result.case.options == LIBRARY_DEFAULTS:
        faults = result.disturbance.faults_per_call
        if faults > MANY_FAULTS:
            yield f"{faults:.0f} page faults a call: the allocator gives memory back"
    yield from (line for line in result.warnings if "of fp32's speed on this machine" in line)
    if chosen is None:
        return
    for kind, words in KINDS.items():
        if "nodes" in ours and counters.get(kind, 0) > ours["nodes"]:
            yield f"{counters[kind]} {words} a call where the chosen one has {ours['nodes']} nodes"
    if result.case.precision == "fp32" and chosen.case.precision != "fp32":
        yield f"fp32 arithmetic where {chosen.case.precision} is allowed"
    if result.case.options == LIBRARY_DEFAULTS and result.case.backend == chosen.case.backend:
        yield "threads unbound and glibc's allocator as it is"
    if (rate := result.metrics.get("flop_rate")) and (other := chosen.metrics.get("flop_rate")):
        reached, theirs = (scaled(each.centre, "FLOP/s", 2) for each in (rate, other))
        yield f"its kernels reach {reached} where the chosen one's reach {theirs}"


def one_thread_less(result: Result, chosen: Result) -> bool:
    return result.case.threads(result.plan.threads) < chosen.case.threads(chosen.plan.threads)
