"""Our kernels beside Liger-Kernel's (pip install liger-kernel==0.8.5): distance to fp64 in the
interpreter, and what the compiler makes of both for sm_90.

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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "results" / "liger.json"
ULP = {"fp32": 2.0**-23, "fp16": 2.0**-10, "bf16": 2.0**-7}
TARGET = "sm_90"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path)
    asked = parser.parse_args()
    if asked.table:
        print(table(json.loads(asked.table.read_text())))
        return
    from importlib.metadata import version

    errors = distances()
    found = {
        "liger": version("liger-kernel"),
        "triton": version("triton"),
        "errors": errors,
        "kernels": [one for name in sorted({row["op"] for row in errors}) for one in static(name)],
    }
    FILE.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


def distances() -> list[dict[str, Any]]:
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
    return [
        {
            "op": op,
            "dtype": dtype,
            "ours": (sum(one for one, _ in pairs) / len(pairs)) ** 0.5,
            "theirs": (sum(other for _, other in pairs) / len(pairs)) ** 0.5,
        }
        for (op, dtype), pairs in squares.items()
    ]


def static(name: str) -> list[dict[str, Any]]:
    """Each kernel of both, compiled as launched."""
    import torch

    from hotlap.kernels.library import operation
    from hotlap.perf.compiled import aot
    from hotlap.perf.compiled.launches import Launch, recorded
    from hotlap.perf.compiled.variants import forth_and_back

    module = operation(name).module
    given = module.typical("bf16", 64, "cpu")
    tensors = [value for value in given if isinstance(value, torch.Tensor)]

    def theirs() -> None:
        leaves = [value.requires_grad_() if value.is_floating_point() else value for value in tensors]
        outputs = THEIRS[name](*leaves)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        torch.autograd.backward(outputs, [torch.empty_like(one) for one in outputs])

    found = []
    for whose, call in (("ours", lambda: forth_and_back(module, given)), ("Liger", theirs)):
        seen: set[str] = set()
        launches: list[Launch] = [
            one for one in recorded(call, TARGET) if not (one.name in seen or seen.add(one.name))
        ]
        for one in launches:
            figures = aot.compiled(
                one.kernel,
                one.types,
                one.constexprs,
                one.divisible,
                one.options.get("num_warps", 4),
                one.options.get("num_stages", 3),
                TARGET,
            )
            loads = {size: count for size, count in figures.sass.items() if size.startswith("load_")}
            wide, spills = loads.get("load_128", 0), figures.spill_loads + figures.spill_stores
            found.append(
                {
                    "op": name,
                    "whose": whose,
                    "kernel": one.name,
                    "registers": figures.registers,
                    "spills": spills,
                    "occupancy": figures.occupancy,
                    "instructions": figures.instructions,
                    "wide": wide,
                    "loads": sum(loads.values()),
                }
            )
    return found


def their_functions() -> dict[str, Any]:
    """By our names.

    They write gradients in place, so what they are given is copied where it is used again.
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
        """Theirs turns queries and keys at once, in place, with tables for both halves."""
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


def table(found: dict[str, Any]) -> str:
    lines = [
        f"Liger-Kernel {found['liger']}, Triton {found['triton']}.",
        "",
        "| operation | dtype | ours, ulp | Liger, ulp | ours / Liger |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one['op']} | {one['dtype']} | {one['ours']:.3f} | {one['theirs']:.3f} |"
        f" {one['ours'] / one['theirs']:.3f} |"
        for one in found["errors"]
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
        " {loads} |".format(**one)
        for one in found["kernels"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    if "--table" not in sys.argv:
        THEIRS = their_functions()
    main()
