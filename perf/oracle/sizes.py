"""Inputs at other sizes of the axes that a workload calls free: what a file for any size is checked
at besides the example's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from ..terms.case import BATCH, Workload
from ..terms.contract import Arrays
from ..terms.reasons import Refusal
from .inputs import finite
from .rows import Inputs

# How many other sizes outputs are compared at.
SIZES = 2


class OtherSizes(NamedTuple):
    """Inputs and their fp64 outputs by what they are called (time=13), and what was left out."""

    batches: dict[str, tuple[Inputs, Arrays]]
    notes: tuple[str, ...]


def other_sizes(
    workload: Workload, run: Callable[[Inputs], Arrays], plain: Callable[[Inputs], Arrays]
) -> OtherSizes:
    """Returns the example inputs at SIZES other sizes of all named axes together, those that the
    model takes; none where only the batch is free.

    run: the model in fp64. plain: as it is.
    """
    batches: dict[str, tuple[Inputs, Arrays]] = {}
    why = "its outputs are not finite"
    sizes = {
        name: value.shape[axis]
        for value, axes in zip(workload.inputs, workload.free, strict=True)
        for axis, name in axes.items()
        if name != BATCH
    }
    if not sizes:
        return OtherSizes({}, ())
    for chosen in candidates(sizes):
        inputs = resized(workload, chosen)
        try:
            fits = finite(plain(inputs))
            outputs = run(inputs)
        except Refusal as refusal:
            why = refusal.reason.detail
            continue
        if fits and finite(outputs):
            batches[",".join(f"{name}={size}" for name, size in chosen.items())] = (inputs, outputs)
        if len(batches) == SIZES:
            return OtherSizes(batches, ())
    return OtherSizes(
        batches,
        (
            f"{' and '.join(sizes)} is said to be free, and of the other sizes that were tried the model"
            f" takes {len(batches)} ({why})",
        ),
    )


def candidates(sizes: dict[str, int]) -> Iterator[dict[str, int]]:
    """Yields other sizes, of which some suit models that halve their inputs several times."""
    ways: tuple[Callable[[int], int], ...] = (
        lambda size: size + size // 2 + 1,
        lambda size: size // 2,
        lambda size: size * 2,
        lambda size: size + 1,
        lambda size: size * 3,
    )
    for way in ways:
        chosen = {name: max(1, way(size)) for name, size in sizes.items()}
        if chosen != sizes:
            yield chosen


def resized(workload: Workload, sizes: dict[str, int]) -> Inputs:
    """Returns the example inputs with these sizes of the named axes, repeated or cut."""
    resized_inputs = []
    for value, axes in zip(workload.inputs, workload.free, strict=True):
        for axis, name in axes.items():
            if name in sizes:
                value = value.index_select(axis, torch.arange(sizes[name]) % value.shape[axis])
        resized_inputs.append(value)
    return tuple(resized_inputs)
