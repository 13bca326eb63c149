"""What outputs are held against: a workload in fp64 on the CPU, or in fp32 where that cannot be."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from ..lookup.onnx_file import OnnxFile
from ..machine.memory import exhausted
from ..terms.case import Workload
from ..terms.contract import Arrays
from ..terms.reasons import Refusal
from . import arrays, leaves, onnx_rounding
from .check import most
from .recast import InFp64, Recast
from .rounding import RoundingCost, cost, moved_by
from .rows import Inputs, another

# How torch says that two tensors are of different precisions.
DTYPES_DIFFER = re.compile(
    r"same dtype|dtypes? .*(?:!=|but got)|expected (?:scalar|data) ?type", re.IGNORECASE
)
# Longest call of ONNX's reference evaluator, s: some thirty make the reference outputs.
SLOWEST_S = 5.0


class Truth(NamedTuple):
    """What outputs are held against."""

    # From inputs to the outputs in fp64, as arrays.
    run: Callable[[Inputs], Arrays]
    # From inputs to what rounding in fp32 was seen to cost each output (rounding.py).
    costs: Callable[[Inputs], list[RoundingCost]]
    # Why it is fp32 eager's and not fp64's; empty where it is.
    no_fp64: str = ""


def truth_of(workload: Workload) -> Truth:
    """Returns fp64 eager; fp32 eager where forward does not run in fp64, as where a compiled part
    of it or one that is no weight names fp32. Raises Refusal: invalid_input where neither runs,
    nondeterministic.
    """
    if isinstance(workload.module, OnnxFile):
        return of_file(workload, workload.module)
    exact = Recast(workload.module, torch.float64)
    # In fp64 the inputs are copies, and what forward changes in them would not show.
    forward(workload.module, workload, "fp32", workload.inputs)

    def outputs(inputs: Inputs) -> tuple[torch.Tensor, ...]:
        with exact.active() as module, InFp64():
            return compared(module(*map(raised, inputs)))

    truth = Truth(partial(forward_in_fp64, exact, workload), partial(costs, outputs))
    try:
        truth.run(workload.inputs)
    except Refusal as refusal:
        if refusal.reason.code != "invalid_input":
            raise
        return Truth(
            partial(forward_in_fp32, workload),
            partial(costs, lambda inputs: compared(workload.module(*inputs))),
            refusal.reason.detail,
        )
    return truth


def costs(outputs: Callable[[Inputs], tuple[torch.Tensor, ...]], inputs: Inputs) -> list[RoundingCost]:
    """Returns what rounding costs each output of torch's own operators."""
    with torch.no_grad():
        return cost(moved_by(partial(outputs, inputs)), outputs(inputs))


def of_file(workload: Workload, module: OnnxFile) -> Truth:
    """Returns the truth of an ONNX file: ONNX's own reference evaluator on a copy in fp64; where
    that does not run, takes too long or is far from ONNX Runtime, ONNX Runtime in fp32 without
    optimisation.
    """
    in_fp32 = Truth(partial(forward_in_fp32, workload), partial(onnx_rounding.costs, module))
    in_fp64 = partial(forward_in_fp64, Recast(module, torch.float64), workload)
    plain, start = in_fp32.run(workload.inputs), time.perf_counter()
    try:
        exact = in_fp64(workload.inputs)
        spent_s = time.perf_counter() - start
        if spent_s > SLOWEST_S:
            raise Refusal(
                "timeout",
                f"ONNX's reference evaluator takes {spent_s:.0f} s a call, more than {SLOWEST_S:.0f}",
            )
        alike(exact, plain)
        if workload.dynamic:
            several = tuple(torch.cat([value, another(value)]) for value in workload.inputs)
            alike(in_fp64(several), in_fp32.run(several))
    except Refusal as refusal:
        return in_fp32._replace(no_fp64=refusal.reason.detail)
    return in_fp32._replace(run=in_fp64)


def alike(exact: Arrays, plain: Arrays) -> None:
    """Raises Refusal(accuracy) where ONNX's evaluator and ONNX Runtime differ by more than rounding
    does.
    """
    for index, (value, other) in enumerate(zip(exact, plain, strict=True)):
        apart = arrays.rmse([other], [value]) if other.shape == value.shape else math.inf
        if not apart <= most(value, "fp32"):
            raise Refusal(
                "accuracy",
                f"ONNX's reference evaluator and ONNX Runtime differ by {apart:.3g} RMSE in output {index},"
                " and one of the two is wrong",
            )


def no_fp64(workload: Workload, truth: Truth) -> tuple[str, ...]:
    """Returns the note of a model that has no truth in fp64; none of any other."""
    if not truth.no_fp64:
        return ()
    against, remedy = "fp32 eager", "; what forward makes should follow the dtype of its inputs"
    if isinstance(workload.module, OnnxFile):
        against, remedy = "ONNX Runtime in fp32 without optimisation", ""
    return (
        f"there is no fp64 reference ({truth.no_fp64}): outputs are held against {against}, and may be"
        f" off by what rounding in fp32 was seen to cost them{remedy}",
    )


def forward_in_fp64(exact: Recast, workload: Workload, inputs: Inputs) -> Arrays:
    """Returns the outputs of the workload's module in fp64. Raises Refusal(invalid_input)."""
    with exact.active() as module, InFp64():
        return forward(module, workload, "fp64", tuple(raised(value) for value in inputs))


def forward_in_fp32(workload: Workload, inputs: Inputs) -> Arrays:
    """Returns the outputs of the workload's module as it is, as fp64 arrays. Raises
    Refusal(invalid_input).
    """
    outputs = forward(workload.module, workload, "fp32", inputs)
    return tuple(value.astype(np.float64) if value.dtype == np.float32 else value for value in outputs)


def forward(module: torch.nn.Module, workload: Workload, precision: str, inputs: Inputs) -> Arrays:
    """Returns the outputs of one call. Raises Refusal: invalid_input with what forward raised,
    nondeterministic where it changes its inputs.
    """
    kept = [value.clone() for value in inputs]
    outputs = call(module, workload, precision, inputs)
    for index, (value, before) in enumerate(zip(inputs, kept, strict=True)):
        if not torch.allclose(value, before, rtol=0.0, atol=0.0, equal_nan=True):
            raise Refusal(
                "nondeterministic",
                f"{workload.name}: forward changes its input {index} in place, so no call can be repeated;"
                " change a copy, x = x.clone()",
            )
    return host(outputs, workload)


def call(function: Callable[..., Any], workload: Workload, precision: str, inputs: Inputs) -> Any:
    """Returns what one call returns. Raises Refusal(invalid_input) with what forward raised."""
    try:
        with torch.no_grad():  # a tensor made in inference mode could not be kept by the module
            return function(*inputs)
    except Exception as error:  # a module may raise anything; it becomes the reason of every case of the race
        if exhausted(error):
            raise
        raise Refusal(
            "invalid_input", f"{workload.name}: forward fails in {precision} eager: {explained(error)}"
        ) from error


def explained(error: Exception) -> str:
    """Returns the class and the message of what forward raised, and what to do where that is
    known.
    """
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if DTYPES_DIFFER.search(text):
        return f"{text}; constants in forward must follow the inputs' dtype"
    if "not attached to a `Trainer`" in text:
        return f"{text}; forward uses self.trainer, which there is only while it trains"
    return text


def host(outputs: Any, workload: Workload) -> Arrays:
    """Returns every tensor of the outputs in the form that is compared. Raises
    Refusal(invalid_input) where there is none, or something that is neither tensor nor None.
    """
    others = [type(leaf).__name__ for leaf in tree_leaves(outputs) if not isinstance(leaf, torch.Tensor)]
    tensors = leaves.tensors(outputs)
    if not tensors or any(name != "NoneType" for name in others):
        kinds = ", ".join(others) or "nothing"
        raise Refusal(
            "invalid_input",
            f"{workload.name}: forward returns {kinds}; expected a tensor or a tuple of tensors",
        )
    if any(tensor.layout != torch.strided for tensor in tensors):
        raise Refusal(
            "invalid_input", f"{workload.name}: forward returns a sparse tensor; return tensor.to_dense()"
        )
    return tuple(leaves.array(tensor) for tensor in tensors)


def raised(value: torch.Tensor) -> torch.Tensor:
    """Returns the tensor in fp64, complex numbers in two of them; integers stay."""
    if value.is_complex():
        return value.to(torch.complex128)
    return value.double() if value.is_floating_point() else value


def compared(outputs: Any) -> tuple[torch.Tensor, ...]:
    """Returns the tensors of the outputs as they are compared: complex numbers as two parts."""
    return tuple(torch.view_as_real(leaf) if leaf.is_complex() else leaf for leaf in leaves.tensors(outputs))
