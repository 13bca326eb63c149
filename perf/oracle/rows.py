"""Whether dimension 0 of a model's inputs is a batch: whether its rows are independent.

They are if outputs move with the rows of the inputs: in another order, and where one row stands in
the place of all others. A recurrent network that takes time first, a normalisation over the batch
and a contrastive loss take inputs of the same shapes, and their rows are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..lookup.workloads import Axis
from ..terms.contract import Arrays
from ..terms.reasons import Refusal

Inputs = tuple[torch.Tensor, ...]
# Rows that are looked at where a model takes fewer than its example has.
ROWS = 3
# How far outputs may move with their place in the batch, in multiples of their largest value: about
# what fp32 resolves. Libraries sum the last rows of a batch in another order.
CLOSE = 1e-6
# The same of a model that does not run in fp64, whose sums are fp32's own.
CLOSE_IN_FP32 = 1e-4


class Seen(NamedTuple):
    """What dimension 0 is, and what showed it, in words."""

    axis: Axis
    why: str


SEVERAL_SIZES = Seen("whole", "it is not of one size in all inputs")


def look(run: Callable[[Inputs], Arrays], inputs: Inputs, near: float = CLOSE) -> Seen:
    """Returns what dimension 0 of the inputs (B, ...) is.

    run: the model in fp64; it may raise Refusal for inputs that it does not take. near: how far
    outputs may move, as CLOSE.
    """
    if not of_one_size(inputs):
        return SEVERAL_SIZES
    few = tuple(value[:ROWS] for value in inputs)
    if len(inputs[0]) == 1:
        few = tuple(torch.cat([value, another(value)]) for value in inputs)
    one_size = Seen("fixed", f"the model takes a batch of {len(inputs[0])} and no other")
    if len(few[0]) != len(inputs[0]) and attempt(run, few) is None:
        return one_size if independent(run, inputs, near) else Seen("whole", "its rows are not independent")
    if not independent(run, few, near):
        return Seen("whole", "its rows are not independent")
    alone = attempt(run, tuple(value[:1] for value in few))
    if alone is None:
        return one_size
    if not counted_alike(run(few), alone, near):
        return Seen("fixed", "what a row gives depends on how many there are")
    return Seen("free", "its rows are independent")


def of_one_size(inputs: Inputs) -> bool:
    """Whether dimension 0 of all inputs is there and of one size."""
    return all(value.ndim and len(value) == len(inputs[0]) for value in inputs)


def independent(run: Callable[[Inputs], Arrays], inputs: Inputs, near: float) -> bool:
    """Whether each row of the outputs depends on the same row of the inputs (B, ...) alone."""
    rows = len(inputs[0])
    if all(bool((value == value[:1]).all()) for value in inputs):
        varied = tuple(torch.cat([value[:1], another(value[:1]), value[2:]]) for value in inputs)
        inputs = inputs if attempt(run, varied) is None else varied
    if rows < 2:
        return True
    outputs = run(inputs)
    # Of two rows, one is not the largest: a maximum over the batch moves with one of them.
    orders = [*range(1, rows), 0], [0] * rows, [1] * rows
    moved: list[Arrays] = []
    for order in orders:
        after = attempt(run, tuple(value[order] for value in inputs))
        if after is None or len(after) != len(outputs):
            return False
        moved.append(after)
    return all(
        follows(before, after, orders, near)
        for before, after in zip(outputs, zip(*moved, strict=True), strict=True)
    )


def counted_alike(several: Arrays, alone: Arrays, near: float) -> bool:
    """Whether the first row gives the same by itself as among several, along one axis of each
    output; an output that is a constant has no rows.
    """
    return len(several) == len(alone) and all(
        close(before, after, before, near)
        if before.shape == after.shape
        else any(
            before.take([0], axis).shape == after.shape and close(before.take([0], axis), after, before, near)
            for axis in range(before.ndim)
        )
        for before, after in zip(several, alone, strict=True)
    )


def follows(
    before: np.ndarray, moved: Sequence[np.ndarray], orders: Sequence[Sequence[int]], near: float
) -> bool:
    """Whether an output is a constant, or its rows along one axis moved in each order as those of
    the inputs did.
    """
    if any(after.shape != before.shape for after in moved):
        return False
    axes = [axis for axis, size in enumerate(before.shape) if size == len(orders[0])]
    return all(close(before, after, before, near) for after in moved) or any(
        all(
            close(before.take(order, axis), after, before, near)
            for order, after in zip(orders, moved, strict=True)
        )
        for axis in axes
    )


def close(left: np.ndarray, right: np.ndarray, scale: np.ndarray, near: float) -> bool:
    """Whether two outputs are the same but for rounding; those that are no numbers where the other
    is none either.
    """
    largest = np.abs(scale[np.isfinite(scale)]).max(initial=0.0)
    return bool(np.allclose(left, right, rtol=0.0, atol=near * float(largest), equal_nan=True))


def another(row: torch.Tensor) -> torch.Tensor:
    """Returns a row (1, ...) that differs from this one where it can and is as lawful.

    That is its values in the opposite order along the last axis that has several; numbers that are
    all alike are halved.
    """
    axes = [axis for axis in range(1, row.ndim) if row.shape[axis] > 1]
    flipped = row.flip(axes[-1]) if axes else row
    return flipped / 2 if row.is_floating_point() and bool((flipped == row).all()) else flipped


def attempt(run: Callable[[Inputs], Arrays], inputs: Inputs) -> Arrays | None:
    """Returns the outputs; None where the model does not take these inputs."""
    try:
        return run(inputs)
    except Refusal:
        return None
