"""What entrants are fed: the user's own inputs first and unchanged, then other rows of the user's,
then random ones where the model takes them.

Masks, offsets, lengths and rows that sum to one are inputs that few random values can replace. What
the model does not take is left out, and a note says so: it is no fault of the model's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from ..terms.case import Workload
from ..terms.contract import Arrays
from ..terms.reasons import Refusal
from .rows import Inputs

Run = Callable[[Inputs], Arrays]
# The fp64 outputs for inputs that the model takes, or why these cannot be used.
Fitting = Callable[[Inputs], Arrays | str]
# Random batches drawn for each one that is wanted, where a model takes some and not others.
DRAWS = 4


class InputSets(NamedTuple):
    """Batches of inputs by kind (real, random, fresh), the fp64 outputs of each, and what was left
    out, in words.
    """

    batches: dict[str, list[Inputs]]
    outputs: dict[str, list[Arrays]]
    notes: tuple[str, ...]


def chosen(workload: Workload, example: Workload, run: Run, plain: Run, count: int, fresh: int) -> InputSets:
    """Returns up to `count` real and random batches each, and `fresh` random ones besides.

    workload: at the case's batch. example: as its author made it. run: the model in fp64. plain: as
    it is; torch's kernels check inputs in one and not in the other. Raises Refusal where it does
    not take the workload's own inputs, or answers them with NaN or infinity.
    """
    own = workload.inputs
    expected = run(own)
    if not finite(expected):
        raise Refusal(
            "invalid_input",
            f"{workload.name}: the fp64 reference itself has NaN or infinite outputs on its own inputs; mend"
            " the model or its weights",
        )
    fits = partial(fitting, run, plain, expected)
    real = [(own, expected)]
    for inputs in other_rows(workload, example):
        if len(real) < count and not isinstance(answer := fits(inputs), str):
            real.append((inputs, answer))
    random, notes = drawn(own, fits, count + fresh)
    pairs = {"real": real, "random": random[:count], "fresh": random[count:]}
    return InputSets(
        {kind: [inputs for inputs, _ in some] for kind, some in pairs.items() if some},
        {kind: [answer for _, answer in some] for kind, some in pairs.items() if some},
        notes,
    )


def other_rows(workload: Workload, example: Workload) -> Iterator[Inputs]:
    """Yields further batches of the user's: rows of the validation split, or of the example inputs
    that are not the first ones, or those in another order.
    """
    if not workload.batched:
        return
    source, batch = example.inputs, workload.batch
    if workload.evaluate is not None and workload.dynamic:
        source = workload.evaluate.inputs
        starts = range(0, len(source[0]), batch)
    else:
        starts = range(batch, len(source[0]), batch) if batch < len(source[0]) else range(1, len(source[0]))
    for start in starts:
        rows = torch.arange(start, start + batch) % len(source[0])
        yield tuple(value[rows] for value in source)


def drawn(own: Inputs, fits: Fitting, count: int) -> tuple[list[tuple[Inputs, Arrays]], tuple[str, ...]]:
    """Returns random batches that the model takes, with their outputs, and what was left out."""
    makers: list[Callable[[torch.Tensor], torch.Tensor]] = [lookalike] * len(own)
    first = tuple(lookalike(value) for value in own)
    answer = fits(first)
    batches: list[tuple[Inputs, Arrays]] = []
    notes: tuple[str, ...] = ()
    if not isinstance(answer, str):
        batches = [(first, answer)]
    else:
        why = answer
        makers = [maker_of(own, index, fits) for index in range(len(own))]
        kept = [str(index) for index, maker in enumerate(makers) if maker is as_it_is]
        notes = (f"our random inputs do not suit the model ({why}): {stayed(kept, len(own))}",)
        if len(kept) == len(own):
            return [], notes
    for _ in range(DRAWS * count):
        if len(batches) == count:
            break
        inputs = tuple(maker(value) for maker, value in zip(makers, own, strict=True))
        answer = fits(inputs)
        if not isinstance(answer, str):
            batches.append((inputs, answer))
    return batches, notes


def maker_of(own: Inputs, index: int, fits: Fitting) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns the first way to change this input alone that the model takes."""
    for maker in (lookalike, shuffled):
        changed = (*own[:index], maker(own[index]), *own[index + 1 :])
        if not isinstance(fits(changed), str):
            return maker
    return as_it_is


def stayed(kept: Sequence[str], inputs: int) -> str:
    """Returns what was done instead, in words."""
    if len(kept) == inputs:
        return "outputs are compared on your own alone, and answers that are kept could not be noticed"
    return f"input {', '.join(kept)} stayed your own" if kept else "their values were put in another order"


def fitting(run: Run, plain: Run, expected: Arrays, inputs: Inputs) -> Arrays | str:
    """Returns the outputs, or why these inputs cannot be used: the model refuses them, or answers
    with other shapes or without a number.
    """
    try:
        if not finite(plain(inputs)):
            return "outputs have NaN or infinity"
        outputs = run(inputs)
    except Refusal as refusal:
        return refusal.reason.detail.partition(" eager: ")[2] or refusal.reason.detail
    if [value.shape for value in outputs] != [value.shape for value in expected]:
        return "outputs have another shape"
    return outputs if finite(outputs) else "outputs have NaN or infinity"


def finite(outputs: Arrays) -> bool:
    return all(bool(np.isfinite(value).all()) for value in outputs)


def lookalike(value: torch.Tensor) -> torch.Tensor:
    """Returns a random input like a real one.

    Floating-point values are normal with its mean and spread, and infinite where it is; integers
    lie in its range.
    """
    if value.is_complex():
        return torch.view_as_complex(lookalike(torch.view_as_real(value)))
    if value.is_floating_point():
        numbers = value[value.isfinite()]
        spread = numbers.std() if numbers.numel() > 1 else 1.0
        drawn = torch.randn_like(value) * spread + (numbers.mean() if numbers.numel() else 0.0)
        return torch.where(value.isfinite(), drawn, value)
    if value.dtype == torch.bool:
        return torch.rand(value.shape) < 0.5
    if value.numel() == 0:
        return value
    end = min(int(value.max()) + 1, torch.iinfo(torch.int64).max)  # of which torch takes no larger one
    return torch.randint(min(int(value.min()), end - 1), end, value.shape, dtype=value.dtype)


def shuffled(value: torch.Tensor) -> torch.Tensor:
    """Returns the values in a random order along the last axis, so that sums of rows stay."""
    return value[..., torch.randperm(value.shape[-1])] if value.ndim else value


def as_it_is(value: torch.Tensor) -> torch.Tensor:
    return value
