"""Runs the checks of bench/on_gpu.sh one after another, each a command with a log.

on_gpu.json is written after each, so that nothing is lost where one is cut off. A check that passes
proves its part on the device (L7), one that only compiles proves L5. A command that measures passes
when it measured something and no case of it failed or fell back, whatever its exit status. On a GPU
--judge and --opcheck have run, each by itself (docs/results/h200.md); of the sequence it is known
that every command starts, that all are skipped with no_device without one, and that a failing one
is reported.
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
# Makes tests/kernels/prove.py run on the device instead of in the interpreter.
PROVE = {"HOTLAP_PROVE_ON": "cuda"}
PYTHON = sys.executable
HOTLAP = [PYTHON, "-m", "hotlap.perf.cli"]
# All that can use an NVIDIA GPU.
BACKENDS = (
    "eager,compile,compile[mode:reduce-overhead],compile[package:aoti],triton,onnxruntime,"
    "tensorrt,tensorrt[route:torch]"
)


class Check(NamedTuple):
    """A command, and what it proves where it ends well."""

    # What is checked, in words.
    name: str
    command: list[str]
    # Variables that the command gets beside the present ones.
    environment: Mapping[str, str] = MappingProxyType({})
    # The file of what the command measured, which is then judged case by case.
    results: Path | None = None
    # The rung of the ladder that the check reaches.
    proves: str = "L7"


def checks(out: Path) -> list[Check]:
    """All checks, in the order in which they run; what they measure goes to the folder `out`."""
    from hotlap.kernels.library import NAMES

    return [
        Check("what the machine is", [*HOTLAP, "doctor"]),
        *(Check(f"numbers of {name}", [PYTHON, "bench/on_gpu.py", "--judge", name], PROVE) for name in NAMES),
        Check("operators of torch.library", [PYTHON, "bench/on_gpu.py", "--opcheck"]),
        Check(
            "compiled kernels of this architecture",
            [*HOTLAP, "kernels", "--target", architecture(), "--json", str(out / "kernels.json")],
            proves="L5",
        ),
        raced("gpt", out / "gpt"),
        raced("vit", out / "vit"),
        raced("resnet", out / "resnet"),
        benchmarks(out / "bench.json"),
    ]


def raced(model: str, out: Path) -> Check:
    """The check that measures a model in all backends."""
    options = ["--device", "cuda:0", "--backends", BACKENDS, "--precisions", "fp32,tf32,bf16,fp16"]
    command = [*HOTLAP, "run", model, *options, "--budget", "60s", "--out", str(out)]
    return Check(f"{model} in all backends", command, results=out / "results.json")


def benchmarks(out: Path) -> Check:
    """The check that measures our operations one by one."""
    options = ["-q", "--hotlap-budget", "10s", "--benchmark-json", str(out)]
    command = [PYTHON, "-m", "pytest", "bench", "-k", "kernels", *options]
    return Check("operations by themselves", command, results=out)


def architecture() -> str:
    """The device's, such as sm_89; sm_90 without one."""
    import torch

    major, minor = torch.cuda.get_device_capability() if torch.cuda.is_available() else (9, 0)
    return f"sm_{major}{minor}"


def device() -> str:
    """The device's name; empty without one."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def main(out: Path) -> int:
    """Runs all checks, or says of each that it was skipped; 1 where one failed."""
    entries: list[dict[str, Any]] = []
    name = device()
    for check in checks(out):
        if name:
            print(f"{check.name} ...", flush=True)
            outcome = run(check, out / f"{len(entries):02d}.log")
        else:
            reason = "no_device: torch sees no CUDA device"
            outcome = {"verified_to": "L0", "status": "skipped", "reason": reason}
        entries.append({"check": check.name, "command": " ".join(check.command[1:]), **outcome})
        content = {"schema": 1, "device": name, "checks": entries}
        (out / "on_gpu.json").write_text(json.dumps(content, indent=1) + "\n")
    for entry in entries:
        reason = f": {entry['reason']}" if entry["reason"] else ""
        print(f"{entry['verified_to']} {entry['status']:8} {entry['check']}{reason}")
    return int(any(entry["status"] == "failed" for entry in entries))


def run(check: Check, log: Path) -> dict[str, Any]:
    """Runs a check's command and returns its part of the entry in on_gpu.json."""
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
    reason = ""
    if status:
        reason = last_line(log)
    elif check.results:
        reason = unproven(check.results)
    return {
        "verified_to": "L0" if reason else check.proves,
        "status": "failed" if reason else "ok",
        "reason": reason,
        "spent_s": time.monotonic() - start,
        "log": log.name,
    }


def unproven(file: Path) -> str:
    """Why a results file, or pytest-benchmark's with ours in it, proves nothing of what was asked.

    Empty where all of its cases ran or were skipped with a reason.
    """
    if not file.is_file():
        return f"{file.name} was not written"
    content = json.loads(file.read_bytes())
    results = content.get("hotlap", content)["results"]
    own = [result for result in results if result["case"]["backend"] != "pace"]
    bad = [failure(result) for result in own if result["status"] in ("failed", "fell_back")]
    if bad:
        return "; ".join(bad)
    return "" if any("latency" in result.get("metrics", {}) for result in own) else "nothing was measured"


def failure(result: dict[str, Any]) -> str:
    """A failed result in one line."""
    case, reason = result["case"], result["reason"]
    return (
        f"{case['workload']} {case['backend']} {case['precision']} {result['status']}:"
        f" {reason['code']}: {reason['detail']}"
    )


def last_line(log: Path) -> str:
    """The last line of a log that is not empty, at most 300 characters of it."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"


def judge(name: str) -> int:
    """Judges what prove.py finds of an operation on the device by the oracle's rule; 1 if wrong."""
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
    """Puts every operation through torch.library.opcheck on the device; raises where one fails."""
    import torch

    from hotlap.kernels import library

    for name in library.NAMES:
        op = library.operation(name)
        for example in list(op.module.examples("fp16"))[1:4]:
            inputs = tuple(on_device(value) for value in example) + op.defaults[len(example) :]
            tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
            torch.library.opcheck(op.forward, inputs, test_utils=tests)
        print(f"{name}: fine", flush=True)
    return 0


def on_device(value: Any) -> Any:
    """A tensor, or a list of tensors, on the device; anything else as it is."""
    import torch

    if isinstance(value, list):
        return [tensor.cuda() for tensor in value]
    return value.cuda() if isinstance(value, torch.Tensor) else value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", nargs="?", type=Path, default=Path("runs/on_gpu"))
    parser.add_argument("--judge", metavar="OPERATION")
    parser.add_argument("--opcheck", action="store_true")
    arguments = parser.parse_args()
    if arguments.judge:
        sys.exit(judge(arguments.judge))
    sys.exit(opcheck() if arguments.opcheck else main(arguments.out.resolve()))
