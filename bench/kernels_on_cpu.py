"""Do our kernels cost anything where they cannot run?

gpt and vit, replaced (kernels/surgery.py), beside the same models as they are, on this CPU.

    python bench/kernels_on_cpu.py [--budget 8m]
        writes docs/results/kernels_on_cpu.json, about 15 minutes
    python bench/kernels_on_cpu.py --table docs/results/kernels_on_cpu.json

A replaced module calls aten, as the module did, after one look at where its input is. `hotlap ab`
races the two, weights the same; the limit is 2 %.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hotlap.perf.machine import survey

if TYPE_CHECKING:
    from hotlap import Workload

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "results" / "kernels_on_cpu.json"
MODELS = ("gpt", "vit")
# How much slower a replaced model may be.
LIMIT = 0.02


def gpt() -> Workload:
    return plain("gpt")


def vit() -> Workload:
    return plain("vit")


def gpt_replaced() -> Workload:
    return replaced("gpt")


def vit_replaced() -> Workload:
    return replaced("vit")


def plain(name: str) -> Workload:
    """The model as it is, with random weights: what a call takes does not depend on them.

    Our operations are imported all the same, so that only the forward differs between the sides.
    """
    from hotlap import Workload
    from hotlap.kernels import library
    from hotlap.models.catalog import network

    for operation in library.NAMES:
        library.operation(operation)
    module = network(name)().eval()
    return Workload(name, module, (module.example(),), item="sample", weights="random, seeded")


def replaced(name: str) -> Workload:
    """The same model with our operations in it."""
    from hotlap.kernels import replace

    workload = plain(name)
    report = replace(workload.module)
    assert report.replaced, report
    return workload


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budget", default="8m")
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text())))
        return
    models = {name: raced(name, arguments.budget) for name in MODELS}
    results = {"machine": machine(), "models": models}
    FILE.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


def raced(name: str, budget: str) -> dict[str, object]:
    """Races a replaced model against the plain one with hotlap ab; any verdict is a result."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        policy, verdict = folder / "gate.toml", folder / "verdict.json"
        policy.write_text(f"[tolerance]\nlatency = {LIMIT}\n")
        sides = [f"bench.kernels_on_cpu:{name}", f"bench.kernels_on_cpu:{name}_replaced"]
        options = {"--budget": budget, "--policy": policy, "--json": verdict, "--out": folder / "ab"}
        words = [str(word) for option in options.items() for word in option]
        command = [sys.executable, "-m", "hotlap.perf.cli", "ab", *sides, *words]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        if not verdict.exists():
            sys.exit(f"hotlap ab ended with {status} and wrote no verdict")
        content = json.loads(verdict.read_text())
    (latency,) = (finding for finding in content["findings"] if finding["metric"] == "latency")
    numbers = {key: latency[key] for key in ("ratio", "low", "high", "verdict")}
    return {**numbers, "reasons": content["reasons"]}


def machine() -> str:
    """The hardware in words."""

    return survey.collect(2, "keep").hardware


def table(results: dict[str, Any]) -> str:
    lines = [
        f"{results['machine']}; fp32, batch 1, eager; baseline: the model as it is.",
        "",
        "| model | replaced / as it is | 95 % interval | limit | verdict |",
        "|---|---|---|---|---|",
    ]
    for name, race in results["models"].items():
        lines.append(
            f"| {name} | {race['ratio']:.4f} | {race['low']:.4f} to {race['high']:.4f} | {1 + LIMIT:.2f} |"
            f" {race['verdict']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
