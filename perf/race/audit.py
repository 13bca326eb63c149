"""Whether the time of a call holds its work: what is compared of timed calls, and what a block's
audit, its clocks and its CPU time say against them.

After MLPerf's audits (compliance/TEST01, outputs compared in the timed run; TEST04, inputs that
repeat must not be faster). A step does not know which of its calls is looked at: how many calls a
turn has, in which order its inputs come and in which round a block is audited is drawn by lot.
What one block shows may be the machine's noise, so it takes most of the blocks, and two, to refuse
a time; wrong outputs take one.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from ..oracle.arrays import rmse
from ..stats import estimates
from ..terms.case import Plan
from ..terms.reasons import Refusal
from .entrant import Entrant
from .messages import Array, Audited, Sampled
from .observations import Block

# How many times as long calls may take with inputs that were never seen before: they are not in the
# CPU's caches, which rotating ones are.
UNSEEN = 2.0
# How many times as long as copying the same bytes it may take to place inputs or fetch outputs, and
# what an interpreter's calls around it may take, s.
COPIES = 20.0
AROUND_S = 50e-6
# How many cores' worth of CPU time, beyond the threads that it may have, an entrant may use.
THREADS_OVER = 0.5
# How many times as long as by the worker's own clock a block's turns may take by the parent's, and
# how late the parent may wake up on a busy machine, s.
CLOCKS = 1.5
LATE_S = 0.25


def unpacked(arrays: Sequence[Array]) -> list[Any]:
    """Returns the arrays that a worker sent."""
    import numpy as np

    return [np.frombuffer(array.content, array.dtype).reshape(array.shape) for array in arrays]


def compare(entrant: Entrant, sampled: Sampled) -> float:
    """Returns the RMSE of a turn's last outputs to their own reference; 0 where none is compared.

    Raises Refusal: stale_output where they are those of other inputs, accuracy.
    """
    if entrant.limits is None:
        return 0.0
    outputs, limits, index = unpacked(sampled.outputs), entrant.limits, sampled.inputs
    apart = off(outputs, entrant.oracle.timed, index)
    if apart <= limits[index]:
        return apart
    for other, limit in enumerate(limits):
        if other != index and off(outputs, entrant.oracle.timed, other) <= limit:
            raise Refusal(
                "stale_output",
                f"a timed call returned the outputs of other inputs (number {other} instead of {index})",
            )
    raise Refusal(
        "accuracy",
        f"a timed call's outputs are off by {apart:.3g} RMSE, at most {limits[index]:.3g} was expected from"
        " the check",
    )


def off(outputs: Sequence[Any], references: Sequence[Any], index: int) -> float:
    """Returns the RMSE of outputs to one batch of the references (K, B, ...)."""
    return rmse(outputs, [value[index] for value in references])


def judge(entrant: Entrant, audited: Audited) -> str:
    """Returns what an audit says against the times of a block; empty where it is nothing.

    Raises Refusal(stale_output) where the outputs of inputs that were kept back are wrong.
    """
    if entrant.limits is None:
        return ""
    apart, limit = off(unpacked(audited.outputs), entrant.oracle.fresh, audited.inputs), max(entrant.limits)
    if not apart <= limit:
        raise Refusal(
            "stale_output",
            f"outputs of inputs that it had not seen before are off by {apart:.3g} RMSE in the timed run, at"
            f" most {limit:.3g} was expected from the check",
        )
    # The least of several: what disturbs one does not disturb all, and hidden work is in each.
    fresh_s, seen_s = min(audited.fresh_s), median(audited.seen_s)
    fetch_s, place_s = min(audited.fetch_s), min(audited.place_s)
    around_s = COPIES * audited.copy_s + AROUND_S
    if fresh_s > UNSEEN * seen_s + AROUND_S:
        return (
            f"a call takes {fresh_s * 1e3:.3g} ms with inputs that it has not seen and"
            f" {seen_s * 1e3:.3g} ms with those that it has: it keeps its answers"
        )
    # On a GPU these two copy between devices, pin memory and may capture a graph of the calls.
    around_calls = (("fetching the outputs", fetch_s), ("placing the inputs", place_s))
    for name, spent_s in around_calls if entrant.case.target == "cpu" else ():
        if spent_s > max(seen_s / 2, around_s):
            return (
                f"{name} takes {spent_s * 1e3:.3g} ms, a call {seen_s * 1e3:.3g} ms and a copy"
                f" {audited.copy_s * 1e3:.3g} ms: work is done where no clock runs"
            )
    return ""


def clocks(block: Block) -> str:
    """Returns how the parent's clock disagrees with the worker's from a block's first turn to its
    last; empty where it does not.
    """
    if len(block.clocks) < 2:
        return ""
    (ours, theirs), (our_last, their_last) = block.clocks[0], block.clocks[-1]
    ours, theirs = our_last - ours, their_last - theirs
    if ours <= CLOCKS * theirs + LATE_S:
        return ""
    return f"{ours:.3g} s pass by the parent's clock and {theirs:.3g} s by its own: its clock is slow"


def threads(entrant: Entrant, block: Block, plan: Plan) -> str:
    """Returns that an entrant used more cores than the race gives it; empty where it did not."""
    by_library = entrant.case.option("allocator", "keep") == "default"
    if entrant.case.target != "cpu" or by_library or not block.turns:
        return ""
    cores = estimates.median([turn.cpu_s / turn.call_s for turn in block.turns if turn.call_s > 0] or [0.0])
    most = entrant.case.threads(plan.threads)
    if cores <= most + THREADS_OVER:
        return ""
    return f"it uses {cores:.1f} cores where it may use {most}: work is done in other threads"


def settle(entrant: Entrant, over: bool) -> None:
    """Refuses an entrant of which most audits, and two, say the same: its time does not hold its
    work. over: no further block comes, so that one audit of one is enough. Raises Refusal.
    """
    spoken = [line for line in entrant.doubts if line]
    if len(spoken) > len(entrant.doubts) / 2 and (over or len(spoken) > 1):
        raise Refusal("unmeasured_work", f"in {len(spoken)} of {len(entrant.doubts)} blocks: {spoken[-1]}")
