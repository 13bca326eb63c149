"""Our kernels beside Liger-Kernel's (pip install liger-kernel==0.8.5).

Compared are the distance to fp64 in the interpreter, and what the compiler makes of both for sm_90.

    python bench/beside_liger.py                     writes docs/results/liger.json, about a minute
    python bench/beside_liger.py --table docs/results/liger.json

Static figures are of each library's kernels as it launches them at the typical size of our
operation in bf16, forward and backward; nothing runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "results" / "liger.json"
# A unit in the last place of 1, for 24, 11 and 8 bits of significand (IEEE 754, and bfloat16).
ULP = {"fp32": 2.0**-23, "fp16": 2.0**-10, "bf16": 2.0**-7}
# Hopper, the architecture both are written for.
TARGET = "sm_90"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text())))
        return
    errors, theirs = distances(), their_functions()
    names = sorted({row["op"] for row in errors})
    results = {
        "liger": version("liger-kernel"),
        "triton": version("triton"),
        "errors": errors,
        "kernels": [kernel for name in names for kernel in compiled_kernels(name, theirs[name])],
    }
    FILE.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


def distances() -> list[dict[str, Any]]:
    """Distance of both libraries to fp64, in ulp, root mean square over examples and outputs."""
    lines = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "kernels" / "liger.py")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    squares: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in map(json.loads, lines):
        unit = row["scale"] * ULP[row["dtype"]]
        squares[row["op"], row["dtype"]].append(((row["ours"] / unit) ** 2, (row["theirs"] / unit) ** 2))
    rows = []
    for (op, dtype), pairs in squares.items():
        ours, theirs = ((sum(values) / len(pairs)) ** 0.5 for values in zip(*pairs, strict=True))
        rows.append({"op": op, "dtype": dtype, "ours": ours, "theirs": theirs})
    return rows


def compiled_kernels(name: str, their_function: Callable[..., Any]) -> list[dict[str, Any]]:
    """What the compiler says of each kernel of both libraries, compiled as it is launched."""
    import torch

    from hotlap.kernels.library import operation
    from hotlap.perf.compiled.launches import recorded
    from hotlap.perf.compiled.variants import forth_and_back

    module = operation(name).module
    inputs = module.typical("bf16", 64, "cpu")
    tensors = [value for value in inputs if isinstance(value, torch.Tensor)]

    def theirs() -> None:
        leaves = [value.requires_grad_() if value.is_floating_point() else value for value in tensors]
        outputs = their_function(*leaves)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        torch.autograd.backward(outputs, [torch.empty_like(output) for output in outputs])

    kernels = []
    for whose, call in (("ours", lambda: forth_and_back(module, inputs)), ("Liger", theirs)):
        launches: dict[str, Any] = {}
        for launch in recorded(call, TARGET):
            launches.setdefault(launch.name, launch)
        kernels += [
            {"op": name, "whose": whose, "kernel": kernel, **figures_of(launch)}
            for kernel, launch in launches.items()
        ]
    return kernels


def figures_of(launch: Any) -> dict[str, Any]:
    """Registers, spills, occupancy (a share), instructions and loads of a recorded launch."""
    from hotlap.perf.compiled import aot

    warps, stages = launch.options.get("num_warps", 4), launch.options.get("num_stages", 3)
    figures = aot.compiled(
        launch.kernel, launch.types, launch.constexprs, launch.divisible, warps, stages, TARGET
    )
    loads = {size: count for size, count in figures.sass.items() if size.startswith("load_")}
    return {
        "registers": figures.registers,
        "spills": figures.spill_loads + figures.spill_stores,
        "occupancy": figures.occupancy,
        "instructions": figures.instructions,
        "wide": loads.get("load_128", 0),
        "loads": sum(loads.values()),
    }


def their_functions() -> dict[str, Callable[..., Any]]:
    """Liger's functions by our names.

    They write gradients in place, so their inputs are copied where they are used again.
    """
    from liger_kernel.ops.cross_entropy import LigerCrossEntropyFunction
    from liger_kernel.ops.fused_add_rms_norm import LigerFusedAddRMSNormFunction
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction
    from liger_kernel.ops.layer_norm import LigerLayerNormFunction
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction
    from liger_kernel.ops.rope import LigerRopeFunction
    from liger_kernel.ops.softmax import LigerSoftmaxFunction
    from liger_kernel.ops.swiglu import LigerSiLUMulFunction

    def rotary(x: Any, cos: Any, sin: Any) -> Any:
        """Calls theirs: queries and keys at once, in place, with tables for both halves."""
        both = [table.repeat(1, 2)[None] for table in (cos, sin)]
        return LigerRopeFunction.apply(x.clone(), x.new_zeros(x.shape), *both)[0]

    return {
        "add_rms_norm": lambda x, residual, weight: LigerFusedAddRMSNormFunction.apply(
            x, residual, weight, 1e-6, 0.0, "llama", False
        ),
        "cross_entropy": lambda x, target: LigerCrossEntropyFunction.apply(x.clone(), target, None)[0],
        "fused_linear_cross_entropy": lambda x, weight, target: LigerFusedLinearCrossEntropyFunction.apply(
            x, weight, target
        )[0],
        "layer_norm": lambda x, weight, bias: LigerLayerNormFunction.apply(x, weight, bias, 1e-5),
        "rms_norm": lambda x, weight: LigerRMSNormFunction.apply(x, weight, 1e-6, 0.0, "llama", False),
        "rotary": rotary,
        "softmax": lambda x: LigerSoftmaxFunction.apply(x),
        "swiglu": lambda a, b: LigerSiLUMulFunction.apply(a, b),
    }


def table(results: dict[str, Any]) -> str:
    lines = [
        f"Liger-Kernel {results['liger']}, Triton {results['triton']}.",
        "",
        "| operation | dtype | ours, ulp | Liger, ulp | ours / Liger |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['op']} | {row['dtype']} | {row['ours']:.3f} | {row['theirs']:.3f} |"
        f" {row['ours'] / row['theirs']:.3f} |"
        for row in results["errors"]
    ]
    lines += [
        "",
        f"{TARGET}, bf16; compiled, not run.",
        "",
        "| operation | whose | kernel | registers | spills | occupancy | instructions | 128-bit loads |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        "| {op} | {whose} | {kernel} | {registers} | {spills} | {occupancy:.0%} | {instructions} | {wide} of"
        " {loads} |".format(**kernel)
        for kernel in results["kernels"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
