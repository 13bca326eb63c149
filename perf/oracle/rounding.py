"""What rounding in fp32 may cost a result, by Monte Carlo arithmetic (Parker, Monte Carlo
Arithmetic, UCLA CSD-970002, 1997).

The result's own size does not say it where terms cancel. The gradient of a softmax over one key is
p (dp - sum(p dp)): exactly 0 in fp64 and in eager, which subtract equal numbers, and some 1e-8 in a
kernel that sums the two in different orders. So the reference runs in fp64 several times, with what
each of its steps returns moved up or down, by chance, as far as rounding in fp32 may move it; what
that does to the result is what rounding may cost. A model that runs in fp32 alone is moved by a
whole ulp: half of one is rounded away.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from .check import EPSILON, minor
from .counts import summed

# How far rounding in fp32 moves a number in its own precision, in ulp of fp32.
ULPS = {torch.float64: 0.5, torch.float32: 1.0}
# What everybody rounds alike, the exact result once: a result that fp32 holds is the same for all.
ROUNDED_ALIKE = (
    "_to_copy",
    "add",
    "sub",
    "rsub",
    "mul",
    "neg",
    "abs",
    "where",
    "masked_fill",
    "clone",
    "cat",
)
# What returns numbers that it was given, or whole ones: nothing is rounded on the way.
SELECTS = {
    name
    for names in (
        "round floor ceil trunc sign full full_like fill",
        "clamp clamp_min clamp_max relu maximum minimum max min amax amin max_pool2d_with_indices",
        "index index_select gather embedding sort topk flip roll",
    )
    for name in names.split()
}
# Chance makes the mean square small in few of them: the mean of 8 squares of a normal variable is
# below a tenth of its expectation once in 1,300 (chi-square with 8 degrees of freedom).
RUNS = 8
# A model that takes long is run fewer times, at least twice: its outputs have many elements.
CAP_S = 2.0
LEAST_RUNS = 2


class Rounded(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its metaclass has no types
    """Moves what an operator returns by half an ulp of fp32 times the square root of the number of
    terms that it sums for one element (Higham and Mary, A New Approach to Probabilistic Rounding
    Error Analysis, SIAM J. Sci. Comput. 41(5), 2019). Views and what is changed in place stay, and
    so does what ROUNDED_ALIKE gives and fp32 holds exactly, as numbers that were integers.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seed = seed
        self.generators: dict[torch.device, torch.Generator] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        if any(value.alias_info is not None for value in func._schema.returns):
            return outputs
        name = func.overloadpacket.__name__
        if name in SELECTS:
            return outputs
        tensors = [value for value in args if isinstance(value, torch.Tensor)]
        terms, rounded = summed(name, tensors, outputs), name not in ROUNDED_ALIKE
        return tree_map(lambda value: self.moved(value, terms, rounded), outputs)

    def moved(self, value: Any, terms: int, rounded: bool) -> Any:
        if not isinstance(value, torch.Tensor) or value.dtype not in ULPS:
            return value
        if value.device not in self.generators:
            self.generators[value.device] = torch.Generator(value.device).manual_seed(self.seed)
        held = value.float().double() if value.dtype == torch.float64 else value.round()
        exact = torch.zeros_like(value, dtype=torch.bool) if rounded else value == held
        up = torch.randint(2, value.shape, generator=self.generators[value.device], device=value.device)
        moved = (2 * up - 1) * ULPS[value.dtype] * EPSILON["fp32"] * math.sqrt(terms)
        return torch.where(exact, value, value * (1 + moved.to(value.dtype)))


def moved_by(run: Callable[[], tuple[torch.Tensor, ...]]) -> Callable[[int], tuple[torch.Tensor, ...]]:
    """Returns a function of a seed that runs torch's operators with what each returns moved."""

    def moved(seed: int) -> tuple[torch.Tensor, ...]:
        with Rounded(seed):
            return run()

    return moved


class RoundingCost(NamedTuple):
    """How far rounding was seen to put an output, RMSE.

    whole: over all its elements. minor: over those that are judged by themselves (check.minor), 0
    where there are none.
    """

    whole: float
    minor: float


def cost(
    run: Callable[[int], tuple[torch.Tensor, ...]], exact: tuple[torch.Tensor, ...]
) -> list[RoundingCost]:
    """Returns the root mean square, over at most RUNS, of how far each output of `run`, which takes
    a seed and has each step moved, is from `exact`.
    """
    smalls = [torch.from_numpy(minor(true.cpu().numpy())) for true in exact]
    squares, runs, start = [[0.0, 0.0] for _ in exact], 0, time.perf_counter()
    while runs < RUNS and (runs < LEAST_RUNS or time.perf_counter() - start < CAP_S):
        moved = run(runs)
        runs += 1
        for value, true, small, sums in zip(moved, exact, smalls, squares, strict=True):
            off = (value.double() - true.double()).square().cpu()
            for index, part in enumerate((off, off[small])):
                sums[index] += float(part.mean()) if part.numel() else 0.0
    return [RoundingCost(*(math.sqrt(square / runs) for square in sums)) for sums in squares]
