"""Our Triton operations one by one on a GPU, beside eager and torch.compile:

`pytest bench -k kernels --benchmark-json=out.json`.

Forward, fp16 and bf16, at the sizes of `hotlap kernels`, with inputs that rotate (warm) and after
the L2 cache was emptied (cold). A share of the roofline above 100 % is refused: then something was
not computed. Where there is no GPU each case is skipped with no_device, and the JSON is written all
the same: nothing is timed in the interpreter, and never the reference under the name of a kernel.
Operations over lists of tensors (adamw, total_norm) are not a workload and are not here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

import hotlap

TARGET = "cuda:0"
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
# Rows of logits: the fp64 reference of all that `typical` has would not fit beside the others.
COUNTS = {"cross_entropy": 1024, "fused_linear_cross_entropy": 1024}


def __getattr__(name: str) -> Callable[[], hotlap.Workload]:
    """bench.bench_kernels:rms_norm is a function that makes a workload."""
    if name not in OPERATIONS:
        raise AttributeError(f"no operation is called {name!r}; there are {', '.join(OPERATIONS)}")
    return lambda: workload(name)


def workload(name: str) -> hotlap.Workload:
    import torch

    from hotlap.kernels.library import operation
    from hotlap.kernels.operation import Operation

    given = operation(name).module.typical(
        "fp32", device="cpu", **({"count": COUNTS[name]} if name in COUNTS else {})
    )
    filled = tuple(fill(value) if isinstance(value, torch.Tensor) else value for value in given)
    return hotlap.Workload(
        name,
        Operation(name, filled).eval(),
        tuple(value for value in filled if isinstance(value, torch.Tensor)),
        item="row",
        dynamic=False,
    )


def fill(value):
    """Random numbers of the same layout; targets spread over the vocabulary."""
    import torch

    return torch.randn_like(value) if value.is_floating_point() else torch.randint_like(value, 50000)


@cache
def batch(name: str) -> int:
    from hotlap.kernels.library import operation

    return int(
        operation(name)
        .module.typical("fp32", **({"count": COUNTS[name]} if name in COUNTS else {}))[0]
        .shape[0]
    )


def entrants(name: str) -> list[str]:
    ours = [
        f"triton{chosen}"
        for chosen in (("[attention:triton]",) if name == "attention" else ("", "[compile:on]"))
    ]
    return [f"{backend}{cold}" for backend in ("eager", "compile", *ours) for cold in ("", "[l2:cold]")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    found = [
        case
        for name in OPERATIONS
        for case in hotlap.cases(
            f"{__name__}:{name}",
            backends=entrants(name),
            precisions=("fp16", "bf16"),
            batches=(batch(name),),
            target=TARGET,
        )
    ]
    metafunc.parametrize("case", found)


def test_kernels(lap, case, record_property):
    result = lap(case)
    share = share_of_roofline(result)
    record_property("share_of_roofline", share)
    assert share <= 1, f"{case}: {share:.0%} of the roofline cannot be; something was not computed"


def share_of_roofline(result: hotlap.Result) -> float:
    """The least time by the part's datasheet over the time that was seen: of all the operation's
    kernels.
    """
    import torch

    from hotlap.kernels.library import operation
    from hotlap.perf.machine.peaks import datasheet

    name = result.case.workload.rpartition(":")[2]
    peak = datasheet(torch.cuda.get_device_name(TARGET))
    if peak is None:
        pytest.fail(
            f"{torch.cuda.get_device_name(TARGET)} is not in perf/machine/peaks.py, so no share of its"
            " roofline is known; add its datasheet"
        )
    module = operation(name).module
    count = {"count": COUNTS[name]} if name in COUNTS else {}
    costs = module.cost(*module.typical(result.case.precision, **count))
    builds = module.builds(result.case.precision)
    forward = [
        cost for cost, build in zip(costs, builds, strict=True) if not build.name.startswith("backward")
    ]
    least = sum(
        peak.roofline_s(cost.flops, cost.moved_bytes, result.case.precision) or 0.0 for cost in forward
    )
    return least / result.metrics["latency"].centre
