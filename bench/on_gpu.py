"""The checks of bench/on_gpu.sh, one after another, each a command with a log; on_gpu.json after each, so that nothing is lost where one is cut off.

A check that passes proves its part on the device (L7). None of them has run on one yet: this file is proven as far as a machine without a GPU allows, that is that every
command starts, that all are skipped with no_device there, and that a failing one is reported.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PROVE = {"HOTLAP_PROVE_ON": "cuda"}
PYTHON = sys.executable
HOTLAP = [PYTHON, "-m", "hotlap.perf.cli"]


def checks(out: Path) -> list[tuple[str, list[str], dict[str, str]]]:
    from hotlap.kernels.library import NAMES

    proofs = [(f"numbers of {name}", [PYTHON, "bench/on_gpu.py", "--judge", name], PROVE) for name in NAMES]
    return [
        ("what the machine is", [*HOTLAP, "doctor"], {}),
        *proofs,
        ("operators of torch.library", [PYTHON, "bench/on_gpu.py", "--opcheck"], {}),
        ("compiled kernels of this architecture", [*HOTLAP, "kernels", "--target", architecture(), "--json", str(out / "kernels.json")], {}),
        ("gpt in all back ends", [*HOTLAP, "run", "gpt", "--device", "cuda:0", "--precisions", "fp32,bf16", "--budget", "60s", "--out", str(out / "gpt")], {}),
        ("vit in all back ends", [*HOTLAP, "run", "vit", "--device", "cuda:0", "--precisions", "fp32,bf16", "--budget", "60s", "--out", str(out / "vit")], {}),
        ("operations by themselves", [PYTHON, "-m", "pytest", "bench", "-k", "kernels", "-q", "--hotlap-budget", "10s", "--benchmark-json", str(out / "bench.json")], {}),
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
    for what, command, more in checks(out):
        log = out / f"{len(found):02d}.log"
        entry: dict[str, Any] = {"check": what, "command": " ".join(command[1:]), "verified_to": "L0", "status": "skipped", "reason": "no_device: torch sees no CUDA device"}
        if name:
            print(f"{what} ...", flush=True)
            start = time.monotonic()
            with log.open("w") as file:
                status = subprocess.run(command, cwd=ROOT, env={**os.environ, **more}, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
            fine = status == 0
            entry |= {"verified_to": "L7" if fine else "L0", "status": "ok" if fine else "failed", "reason": "" if fine else last_line(log), "spent_s": time.monotonic() - start}
            entry["log"] = log.name
        found.append(entry)
        (out / "on_gpu.json").write_text(json.dumps({"schema": 1, "device": name, "checks": found}, indent=1) + "\n")
    for entry in found:
        print(f"{entry['verified_to']} {entry['status']:8} {entry['check']}{': ' + entry['reason'] if entry['reason'] else ''}")
    return int(any(entry["status"] == "failed" for entry in found))


def last_line(log: Path) -> str:
    return next((line for line in reversed(log.read_text(errors="replace").splitlines()) if line.strip()), "no output")[:300]


def judge(name: str) -> int:
    """prove.py's figures on the device, by the oracle's rule."""
    done = subprocess.run([PYTHON, "tests/kernels/prove.py", name], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr)
        return 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    bad = [(row["dtype"], row["shape"], error) for row in rows for error in row["errors"] if not (error["finite"] and error["rmse"] <= error["allowed"])]
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
            torch.library.opcheck(op.forward, inputs, test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"))
        print(f"{name}: fine", flush=True)
    return 0


def moved(value: Any) -> Any:
    import torch

    return [one.cuda() for one in value] if isinstance(value, list) else value.cuda() if isinstance(value, torch.Tensor) else value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=Path("runs/on_gpu"))
    parser.add_argument("--judge", metavar="OPERATION")
    parser.add_argument("--opcheck", action="store_true")
    asked = parser.parse_args()
    sys.exit(judge(asked.judge) if asked.judge else opcheck() if asked.opcheck else main(asked.out.resolve()))
