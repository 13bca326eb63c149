"""Do our kernels cost anything where they cannot run? gpt and vit, replaced (kernels/surgery.py),
beside the same models as they are, on this CPU.

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
from typing import TYPE_CHECKING

from hotlap.perf.machine import survey

if TYPE_CHECKING:
    from hotlap import Workload

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "results" / "kernels_on_cpu.json"
MODELS, LIMIT = ("gpt", "vit"), 0.02


def gpt() -> Workload:
    return plain("gpt")


def vit() -> Workload:
    return plain("vit")


def gpt_replaced() -> Workload:
    return replaced("gpt")


def vit_replaced() -> Workload:
    return replaced("vit")


def plain(name: str) -> Workload:
    """With seeded weights: what a call takes does not depend on them.

    Both sides have imported the same, so that only the forward differs.
    """
    from hotlap import Workload
    from hotlap.kernels import library
    from hotlap.models.catalog import network

    for operation in library.NAMES:
        library.operation(operation)
    module = network(name)().eval()
    return Workload(name, module, (module.example(),), item="sample", weights="random, seeded")


def replaced(name: str) -> Workload:
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
    asked = parser.parse_args()
    if asked.table:
        print(table(json.loads(asked.table.read_text())))
        return
    found = {"machine": machine(), "models": {name: raced(name, asked.budget) for name in MODELS}}
    FILE.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


def raced(name: str, budget: str) -> dict[str, object]:
    """What hotlap ab finds of the replaced model over the plain one; any verdict is a result."""
    with tempfile.TemporaryDirectory() as folder:
        policy, verdict = Path(folder) / "gate.toml", Path(folder) / "verdict.json"
        policy.write_text(f"[tolerance]\nlatency = {LIMIT}\n")
        sides = [f"bench.kernels_on_cpu:{name}", f"bench.kernels_on_cpu:{name}_replaced"]
        command = [
            sys.executable,
            "-m",
            "hotlap.perf.cli",
            "ab",
            *sides,
            "--budget",
            budget,
            "--policy",
            str(policy),
            "--json",
            str(verdict),
            "--out",
            str(Path(folder) / "ab"),
        ]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        if not verdict.exists():
            sys.exit(f"hotlap ab ended with {status} and wrote no verdict")
        content = json.loads(verdict.read_text())
    (latency,) = (one for one in content["findings"] if one["metric"] == "latency")
    return {key: latency[key] for key in ("ratio", "low", "high", "verdict")} | {
        "reasons": content["reasons"]
    }


def machine() -> str:

    return survey.collect(2, "keep").hardware


def table(found: dict) -> str:
    lines = [
        f"{found['machine']}; fp32, batch 1, eager; baseline: the model as it is.",
        "",
        "| model | replaced / as it is | 95 % interval | limit | verdict |",
        "|---|---|---|---|---|",
    ]
    for name, one in found["models"].items():
        lines.append(
            f"| {name} | {one['ratio']:.4f} | {one['low']:.4f} to {one['high']:.4f} | {1 + LIMIT:.2f} |"
            f" {one['verdict']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
