"""Our Triton operations one by one on a GPU, beside eager and torch.compile.

    pytest bench -k kernels --benchmark-json=out.json

Forward, fp16 and bf16, at the sizes of `hotlap kernels`, with inputs that rotate (warm) and after
the L2 cache was emptied (cold). A share of the roofline above 100 % is refused: then something was
not computed. Where there is no GPU each case is skipped with no_device, and the JSON is written all
the same: nothing is timed in the interpreter, and never the reference under the name of a kernel.
Operations over lists of tensors (adamw, total_norm) are not a workload and are not here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

import hotlap
from hotlap.kernels.library import operation
from hotlap.kernels.operation import OperationModule

TARGET = "cuda:0"
# Those over tensors alone, and not over lists of them.
OPERATIONS = (
    "add_layer_norm",
    "add_rms_norm",
    "attention",
    "batch_norm",
    "bias_gelu",
    "cross_entropy",
    "fused_linear_cross_entropy",
    "layer_norm",
    "matmul",
    "rms_norm",
    "rotary",
    "softmax",
    "swiglu",
)
# Rows of logits, fewer than at the typical size: the fp64 reference of all would not fit beside
# the others.
COUNTS = {"cross_entropy": 1024, "fused_linear_cross_entropy": 1024}


def __getattr__(name: str) -> Callable[[], hotlap.Workload]:
    """The function that makes an operation's workload, such as bench.bench_kernels:rms_norm."""
    if name not in OPERATIONS:
        raise AttributeError(f"no operation is called {name!r}; there are {', '.join(OPERATIONS)}")
    return lambda: workload(name)


def workload(name: str) -> hotlap.Workload:
    """The operation with random inputs of its typical size."""
    arguments = typical(name, "fp32", device="cpu")
    filled = tuple(fill(value) if isinstance(value, torch.Tensor) else value for value in arguments)
    tensors = tuple(value for value in filled if isinstance(value, torch.Tensor))
    return hotlap.Workload(name, OperationModule(name, filled).eval(), tensors, item="row", dynamic=False)


def typical(name: str, precision: str, **more: Any) -> tuple[Any, ...]:
    """The operation's arguments at the size of `hotlap kernels`, on the meta device by default."""
    rows = {"count": COUNTS[name]} if name in COUNTS else {}
    return operation(name).module.typical(precision, **rows, **more)


def fill(value: torch.Tensor) -> torch.Tensor:
    """Random numbers of the same layout; targets are spread over a vocabulary of 50,000."""
    return torch.randn_like(value) if value.is_floating_point() else torch.randint_like(value, 50000)


@cache
def batch(name: str) -> int:
    """The first size of the operation's first input."""
    return int(typical(name, "fp32")[0].shape[0])


def backends(name: str) -> list[str]:
    """What an operation is measured in, each with a warm and with a cold L2 cache."""
    ours = ("triton[attention:triton]",) if name == "attention" else ("triton", "triton[compile:on]")
    return [f"{backend}{cold}" for backend in ("eager", "compile", *ours) for cold in ("", "[l2:cold]")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = [
        case
        for name in OPERATIONS
        for case in hotlap.cases(
            f"{__name__}:{name}",
            backends=backends(name),
            precisions=("fp16", "bf16"),
            batches=(batch(name),),
            target=TARGET,
        )
    ]
    metafunc.parametrize("case", cases)


def test_kernels(lap, case, record_property):
    result = lap(case)
    share = share_of_roofline(result)
    record_property("share_of_roofline", share)
    assert share <= 1, f"{case}: {share:.0%} of the roofline cannot be; something was not computed"


def share_of_roofline(result: hotlap.Result) -> float:
    """The least time that the part's datasheet allows over the time that was seen.

    The least time is the sum over the operation's forward kernels. Fails the test where the part's
    datasheet is not known.
    """
    from hotlap.perf.machine.peaks import datasheet

    name = result.case.workload.rpartition(":")[2]
    part = torch.cuda.get_device_name(TARGET)
    peak = datasheet(part)
    if peak is None:
        pytest.fail(
            f"{part} is not in perf/machine/peaks.py, so no share of its roofline is known; add its datasheet"
        )
    module, precision = operation(name).module, result.case.precision
    costs = module.cost(*typical(name, precision))
    kernels = zip(costs, module.builds(precision), strict=True)
    forward = [cost for cost, build in kernels if not build.name.startswith("backward")]
    least_s = sum(peak.roofline_s(cost.flops, cost.moved_bytes, precision) or 0.0 for cost in forward)
    return least_s / result.metrics["latency"].centre
