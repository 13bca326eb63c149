"""What int8 takes the ranges of activations from: real inputs of the training split, never of the one that judges."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .case import Workload

if TYPE_CHECKING:
    from .backends import Arrays

ROWS = 256


class Calibration(NamedTuple):
    """batches: inputs with as many rows as the workload's own. source: where they come from, in words that stand with the result."""

    batches: list[Arrays]
    source: str


def calibration(workload: Workload) -> Calibration:
    """At most ROWS rows, whole batches only; without a training split the example inputs and four look-alikes of them, which it says."""
    import torch

    from .reference import lookalike

    rows = len(workload.inputs[0])
    given = workload.calibration
    if given is None or len(given[0]) < rows:
        torch.manual_seed(0)
        sets = [workload.inputs, *(tuple(lookalike(value) for value in workload.inputs) for _ in range(4))]
        return Calibration([tuple(value.numpy() for value in values) for values in sets], "the example inputs and 4 random ones like them: give Workload.calibration real ones")
    starts = range(0, min(ROWS, len(given[0])) - rows + 1, rows)
    return Calibration([tuple(value[at : at + rows].numpy() for value in given) for at in starts], f"{len(starts) * rows} rows of the training split")
