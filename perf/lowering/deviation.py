"""How far a value of a backend is from fp64, and which batch of a refused case is furthest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..oracle import check
from ..oracle.arrays import named
from ..terms.contract import Arrays
from ..terms.reasons import Refusal


class RefusedBatch(NamedTuple):
    """A batch for which a backend's answer was refused.

    outputs: the backend's. allowed: the RMSE that each of them may have. terms: the longest sum.
    """

    inputs: Arrays
    outputs: Arrays
    allowed: Sequence[float]
    precision: str
    terms: int


class Error(NamedTuple):
    """A value's own error, what the rule allows, and what eager loses: root mean squares."""

    rmse: float
    allowed: float
    eager: float

    @property
    def excess(self) -> float:
        """The error in multiples of what is allowed."""
        if self.rmse <= self.allowed and not self.allowed:
            return 0.0
        return self.rmse / self.allowed if self.allowed > 0 else np.inf


def compare(output: np.ndarray, true: torch.Tensor, eager: torch.Tensor, refused: RefusedBatch) -> Error:
    """Returns the error of a value to fp64, judged by the oracle's rule; small elements beside huge
    ones by their own size.
    """
    exact, own = true.numpy(), eager.to(true.dtype).numpy()
    if output.shape != exact.shape:
        return Error(np.inf, 0.0, off(own, true))
    errors: list[Error] = []
    for chosen in (np.ones(exact.shape, bool), check.minor(exact)):
        if not chosen.any() and errors:
            continue
        rmse, eager_rmse = off(output[chosen], exact[chosen]), off(own[chosen], exact[chosen])
        allowed = eager_rmse
        if exact.dtype.kind == "f":
            rms = size(exact[chosen])
            sums = check.summing(refused.terms, rms)
            allowed = check.allowance(eager_rmse, rms, exact.size, refused.precision, sums).tolerance
        errors.append(Error(rmse, allowed, eager_rmse))
    return max(errors, key=excess)


def excess(error: Error) -> float:
    return error.excess


def off(output: np.ndarray, true: np.ndarray | torch.Tensor) -> float:
    """Returns the root mean square error; integers and booleans are off by 1 if they are others.

    What is not finite on both sides alike is right, on one side infinitely wrong.
    """
    exact = true.numpy() if isinstance(true, torch.Tensor) else true
    if output.shape != exact.shape:
        return float("inf")
    if exact.dtype.kind in "iub":
        return float(np.sqrt(np.mean(output != exact))) if exact.size else 0.0
    value = output.astype(np.float64)
    finite = np.isfinite(value) & np.isfinite(exact)
    alike = (value == exact) | (np.isnan(value) & np.isnan(exact))
    if not (finite | alike).all():
        return float("inf")
    return float(np.sqrt(np.sum(np.square(value[finite] - exact[finite])) / max(1, exact.size)))


def size(value: np.ndarray | torch.Tensor) -> float:
    """Returns the root mean square of what is finite."""
    array = np.asarray(value, np.float64)
    array = array[np.isfinite(array)]
    return float(np.sqrt(np.mean(np.square(array)))) if array.size else 0.0


def worst(oracle: Path, outputs: Mapping[str, Path], precision: str, terms: int) -> RefusedBatch:
    """Returns the batch whose outputs (kind of inputs -> file) are furthest from fp64, in multiples
    of what is allowed.
    """
    batches = []
    for kind, path in outputs.items():
        with (
            np.load(oracle / f"{kind}.npz", allow_pickle=False) as stored,
            np.load(path, allow_pickle=False) as produced,
        ):
            inputs, true = named(stored, "in"), named(stored, "ref")
            eager, outs = named(stored, f"eager-{precision}-"), named(produced, "out")
            roundings = [float(stored.get(f"rounding{index}", 0.0)) for index in range(len(true))]
        if len(outs) != len(true):
            continue
        allowed = [
            check.distance(each, each, own, precision, terms, rounding).tolerance
            for each, own, rounding in zip(true, eager, roundings, strict=True)
        ]
        for index in range(len(inputs[0])):
            answer = tuple(out[index] for out in outs)
            errors = [off(out, each[index]) for out, each in zip(answer, true, strict=True)]
            excess = max(
                error / limit if limit > 0 else error for error, limit in zip(errors, allowed, strict=True)
            )
            batch = tuple(np.ascontiguousarray(value[index]) for value in inputs)
            batches.append((excess, RefusedBatch(batch, answer, allowed, precision, terms)))
    if not batches:
        raise Refusal("accuracy", "there are more or fewer outputs than torch gives, so none can be compared")
    return max(batches, key=lambda pair: np.nan_to_num(pair[0], nan=np.inf))[1]
