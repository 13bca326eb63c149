"""The checks of bench/on_gpu.sh, one after another, each a command with a log; on_gpu.json after
each, so that nothing is lost where one is cut off.

A check that passes proves its part on the device (L7), one that only compiles proves L5. A command
that measures passes when it measured something and no case of it failed or fell back, whatever its
exit status. None of them has run on a GPU yet: this file is proven as far as a machine without one
allows, that is that every command starts, that all are skipped with no_device there, and that a
failing one is reported.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PROVE = {"HOTLAP_PROVE_ON": "cuda"}
PYTHON = sys.executable
HOTLAP = [PYTHON, "-m", "hotlap.perf.cli"]
BACKENDS = (
    "eager,compile,compile[mode:reduce-overhead],compile[package:aoti],triton,onnxruntime,"
    "tensorrt,tensorrt[route:torch]"
)


class Check(NamedTuple):
    """results: what the command measured, judged case by case. proves: the rung."""

    what: str
    command: list[str]
    environment: Mapping[str, str] = MappingProxyType({})
    results: Path | None = None
    proves: str = "L7"


def checks(out: Path) -> list[Check]:
    from hotlap.kernels.library import NAMES

    def raced(model: str) -> Check:
        folder = out / model
        asked = [
            "--device",
            "cuda:0",
            "--backends",
            BACKENDS,
            "--precisions",
            "fp32,tf32,bf16,fp16",
            "--budget",
            "60s",
            "--out",
            str(folder),
        ]
        return Check(
            f"{model} in all back ends", [*HOTLAP, "run", model, *asked], results=folder / "results.json"
        )

    benchmarks = [
        PYTHON,
        "-m",
        "pytest",
        "bench",
        "-k",
        "kernels",
        "-q",
        "--hotlap-budget",
        "10s",
        "--benchmark-json",
        str(out / "bench.json"),
    ]
    return [
        Check("what the machine is", [*HOTLAP, "doctor"]),
        *(Check(f"numbers of {name}", [PYTHON, "bench/on_gpu.py", "--judge", name], PROVE) for name in NAMES),
        Check("operators of torch.library", [PYTHON, "bench/on_gpu.py", "--opcheck"]),
        Check(
            "compiled kernels of this architecture",
            [*HOTLAP, "kernels", "--target", architecture(), "--json", str(out / "kernels.json")],
            proves="L5",
        ),
        raced("gpt"),
        raced("vit"),
        raced("resnet"),
        Check("operations by themselves", benchmarks, results=out / "bench.json"),
    ]


def architecture() -> str:
    import torch

    major, minor = torch.cuda.get_device_capability() if torch.cuda.is_available() else (9, 0)
    return f"sm_{major}{minor}"


def device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def main(out: Path) -> int:
    found: list[dict[str, Any]] = []
    name = device()
    for check in checks(out):
        log = out / f"{len(found):02d}.log"
        entry: dict[str, Any] = {
            "check": check.what,
            "command": " ".join(check.command[1:]),
            "verified_to": "L0",
            "status": "skipped",
            "reason": "no_device: torch sees no CUDA device",
        }
        if name:
            print(f"{check.what} ...", flush=True)
            start = time.monotonic()
            with log.open("w") as file:
                status = subprocess.run(
                    check.command,
                    cwd=ROOT,
                    env={**os.environ, **check.environment},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    check=False,
                ).returncode
            why = last_line(log) if status else unproven(check.results) if check.results else ""
            entry |= {
                "verified_to": "L0" if why else check.proves,
                "status": "failed" if why else "ok",
                "reason": why,
                "spent_s": time.monotonic() - start,
            }
            entry["log"] = log.name
        found.append(entry)
        (out / "on_gpu.json").write_text(
            json.dumps({"schema": 1, "device": name, "checks": found}, indent=1) + "\n"
        )
    for entry in found:
        print(
            f"{entry['verified_to']} {entry['status']:8}"
            f" {entry['check']}{': ' + entry['reason'] if entry['reason'] else ''}"
        )
    return int(any(entry["status"] == "failed" for entry in found))


def unproven(file: Path) -> str:
    """Why a results file, or pytest-benchmark's with ours in it, proves nothing of what was asked;
    empty if all of its cases ran or were skipped with a reason.
    """
    if not file.is_file():
        return f"{file.name} was not written"
    content = json.loads(file.read_bytes())
    own = [one for one in content.get("hotlap", content)["results"] if one["case"]["backend"] != "pace"]
    bad = [one for one in own if one["status"] in ("failed", "fell_back")]
    if bad:
        return "; ".join(
            f"{one['case']['workload']} {one['case']['backend']} {one['case']['precision']} {one['status']}:"
            f" {one['reason']['code']}: {one['reason']['detail']}"
            for one in bad
        )
    return "" if any("latency" in one.get("metrics", {}) for one in own) else "nothing was measured"


def last_line(log: Path) -> str:
    return next(
        (line for line in reversed(log.read_text(errors="replace").splitlines()) if line.strip()), "no output"
    )[:300]


def judge(name: str) -> int:
    """prove.py's figures on the device, by the oracle's rule."""
    done = subprocess.run(
        [PYTHON, "tests/kernels/prove.py", name], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stderr)
        return 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    bad = [
        (row["dtype"], row["shape"], error)
        for row in rows
        for error in row["errors"]
        if not (error["finite"] and error["rmse"] <= error["allowed"])
    ]
    print(*bad, sep="\n")
    print(f"{name}: {len(rows)} examples, {len(bad)} too far from fp64")
    return int(bool(bad) or not rows)


def opcheck() -> int:
    import torch

    from hotlap.kernels import library

    for name in library.NAMES:
        op = library.operation(name)
        for given in list(op.module.examples("fp16"))[1:4]:
            inputs = tuple(moved(value) for value in given) + op.defaults[len(given) :]
            torch.library.opcheck(
                op.forward, inputs, test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
            )
        print(f"{name}: fine", flush=True)
    return 0


def moved(value: Any) -> Any:
    import torch

    return (
        [one.cuda() for one in value]
        if isinstance(value, list)
        else value.cuda()
        if isinstance(value, torch.Tensor)
        else value
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", nargs="?", type=Path, default=Path("runs/on_gpu"))
    parser.add_argument("--judge", metavar="OPERATION")
    parser.add_argument("--opcheck", action="store_true")
    asked = parser.parse_args()
    sys.exit(judge(asked.judge) if asked.judge else opcheck() if asked.opcheck else main(asked.out.resolve()))
