"""Does hotlap work with this version of torch, installed as most users do, without extras?

    python bench/versions.py 2.15 2.11       a fresh environment for each
    python bench/versions.py 2.9 --oldest    other dependencies at the least version they may have
    python bench/versions.py --in FOLDER     an environment that there is
    python bench/versions.py --table docs/results/versions.json

--python names the interpreter, --json a file for what was seen, to which it is added.

Each step is a command as a user types it, on a model of the user's own: it must end as it should,
and what it printed or wrote must say so. Exit: 0 all steps passed, 1 one did not, 2 an environment
could not be installed. Then, as on a machine without a network, nothing is known: no pass.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
# A user's own module: a convolution, norms of both kinds, a product.
MODEL = """
import torch


def make():
    torch.manual_seed(0)
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Flatten(2),
        torch.nn.LayerNorm(64), torch.nn.GELU(), torch.nn.Flatten(), torch.nn.Linear(512, 10),
    )
    return layers.eval(), torch.randn(1, 3, 8, 8)
"""
KERNEL = """
import triton
import triton.language as tl


@triton.jit
def add(x, n, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + index, tl.load(x + index, mask=index < n) + 1.0, mask=index < n)
"""
OPEN = """
import sys
import numpy as np
from hotlap import open_artefact
for folder in sys.argv[1:]:
    model = open_artefact(folder)
    print(*(model(np.ones((rows, 3, 8, 8), np.float32))[0].shape for rows in (1, 3)))
"""
VERSIONS = """
import importlib.metadata, json, platform, sys
installed = {found.name.lower(): found.version for found in importlib.metadata.distributions()}
listed = {name: installed[name] for name in sys.argv[1:] if name in installed}
print(json.dumps({"Python": platform.python_version(), **listed}))
"""
PACKAGE = "compile[dynamic:on][package:aoti]"
# What runs on any CPU with torch and its own compiler, and what must say why it does not.
TIMED = ("eager", "compile", PACKAGE, "onnxruntime")
REFUSED = {
    "openvino": "dep_missing",
    "triton": "no_device",
    "tensorrt": "unsupported_target",
}
# The first torch that is known to trace a model for a GPU that is not here; older ones must say so.
TRACES = (2, 11)
# Packages whose versions are shown.
SHOWN = ("torch", "triton", "onnxruntime-gpu", "onnxruntime", "onnx", "lightning", "numpy", "scipy")
# Only against a command that hangs: beside other work a compilation takes minutes.
LONGEST_S = 1200.0


class Broken(Exception):
    """A step did not end as it must: one line and what was printed last."""


class Uninstalled(Exception):
    """There is no environment, so nothing is known."""


class Environment(NamedTuple):
    """An installed environment, and the folder in which its commands run."""

    python: Path
    work: Path

    def run(self, *command: str, status: tuple[int, ...] = (0,)) -> str:
        """Returns what a command prints. Raises Broken where its exit status is another one."""
        # Nothing of the calling environment is imported.
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        try:
            ended = subprocess.run(
                command,
                cwd=self.work,
                env={**variables, "HOTLAP_RUNS": str(self.work / "runs")},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=LONGEST_S,
                check=False,
            )
        except subprocess.TimeoutExpired as slow:
            printed = (slow.stdout or b"").decode(errors="replace")
            raise Broken(f"{' '.join(command[1:])}: no end after {LONGEST_S:g} s\n{printed}") from None
        if ended.returncode not in status or "Traceback (most recent call last)" in ended.stdout:
            tail = "\n".join(ended.stdout.splitlines()[-30:])
            raise Broken(f"{' '.join(command[1:])}: ended with {ended.returncode}\n{tail}")
        return ended.stdout

    def hotlap(self, *arguments: str, status: tuple[int, ...] = (0,)) -> str:
        """Returns what a command of hotlap prints. Raises Broken."""
        return self.run(str(self.python.parent / "hotlap"), *arguments, status=status)

    def versions(self) -> dict[str, str]:
        """Returns the versions of Python and of the packages that are shown."""
        listed: dict[str, str] = json.loads(self.run(str(self.python), "-c", VERSIONS, *SHOWN))
        return listed

    def traces(self) -> bool:
        """Returns whether its torch must trace a model for a GPU that is not here."""
        major, minor = self.versions()["torch"].split(".")[:2]
        return (int(major), int(minor)) >= TRACES


def must(holds: bool, words: str) -> None:
    """Raises Broken with the words unless it holds."""
    if not holds:
        raise Broken(words)


def doctor(there: Environment) -> str:
    printed = there.hotlap("doctor", "--seconds", "1")
    version = there.versions()["torch"]
    must(f"torch {version}" in printed, f"doctor names no torch {version}:\n{printed}")
    return f"torch {version}"


def run(there: Environment) -> str:
    """Every backend is timed and right, or says why not."""
    backends = ",".join((*TIMED, *REFUSED))
    there.hotlap("run", "own:make", "--backends", backends, "--budget", "3s", "--out", "first")
    results = json.loads((there.work / "first" / "results.json").read_bytes())["results"]
    statuses = {}
    for result in results:
        options = "".join(f"[{name}:{value}]" for name, value in result["case"]["options"])
        statuses[result["case"]["backend"] + options] = result
    for name in TIMED:
        timed = statuses[name]
        must(
            timed["status"] in ("ok", "noisy") and "latency" in timed["metrics"],
            f"{name}: {timed['status']}, {timed['reason']}",
        )
    for name, code in REFUSED.items():
        reason = statuses[name]["reason"] or {}
        if name == "triton" and not there.traces():
            code = "dep_missing"
        must(reason.get("code") == code, f"{name}: {statuses[name]['status']}, {reason}, not {code}")
    return f"{len(TIMED)} timed, {len(REFUSED)} refused with their reasons"


def int8(there: Environment) -> str:
    """What needs an extra says which."""
    there.hotlap(
        "run", "own:make", "--backends", "compile", "--precisions", "int8", "--out", "int8", status=(0, 4)
    )
    results = json.loads((there.work / "int8" / "results.json").read_bytes())["results"]
    (reason,) = [result["reason"] for result in results if result["case"]["backend"] == "compile"]
    must("hotlap[int8]" in reason["detail"], f"int8 without torchao: {reason}")
    return reason["code"]


def gate(there: Environment) -> str:
    """Two files of the same steady latencies pass; with three times the latency one does not."""
    for name, factor in (("base", 1.0), ("same", 1.0), ("slower", 3.0)):
        results = json.loads((ROOT / "docs" / "results" / "run.json").read_bytes())
        for result in results["results"]:
            if latency := result["metrics"].get("latency"):
                own = 1.0 if result["case"]["backend"] == "pace" else factor
                latency["values"] = [
                    [own * latency["values"][0][0]] * len(block) for block in latency["values"]
                ]
        results["run"] = name  # files with the same bytes are refused: nothing was measured twice
        (there.work / f"{name}.json").write_text(json.dumps(results))
    there.hotlap("gate", "base.json", "same.json", status=(0,))
    there.hotlap("gate", "base.json", "slower.json", status=(1,))
    there.hotlap("gate", "first/results.json", "base.json", status=(3,))
    return "pass, regression and not comparable told apart"


def review(there: Environment) -> str:
    """Traces of this torch, eager and compiled, and a stored one."""
    kinds = ("eager", "compile")
    for backend in kinds:
        there.hotlap("profile", "own:make", "--backend", backend, "--out", f"{backend}.json.gz")
        printed = there.hotlap("review", f"{backend}.json.gz")
        must("convolution" in printed, f"no convolution in the review of {backend}:\n{printed}")
    there.hotlap("review", str(ROOT / "tests" / "profiles" / "traces" / "h100_bert_small_infer.json.gz"))
    return f"own traces of {' and '.join(kinds)}, a stored one of an H100"


def kernels(there: Environment) -> str:
    """Ours against the baseline of this Triton if it has one, one of the user's own, a census of
    Inductor's.
    """
    ours = there.hotlap("kernels", "--op", "softmax", "--target", "sm_90", "--target", "gfx942")
    signature = "x:*bf16, n:i32, BLOCK:constexpr=1024"
    there.hotlap("kernels", "own_kernel:add", "--signature", signature, "--target", "sm_90")
    traces = there.traces()
    census = there.hotlap("kernels", "--inductor", "own:make", status=(0 if traces else 2,))
    must(("| triton_" if traces else "dep_missing: torch") in census, f"no kernel of Inductor's:\n{census}")
    last = ours.strip().splitlines()[-1]
    must("findings passed" in last, f"no verdict:\n{ours}")
    return f"{last}{'; no baseline for this Triton' if 'no baseline' in ours else ''}"


def ladder(there: Environment) -> str:
    """How far a GPU is proven that is not here."""
    there.hotlap(
        *("doctor", "--ladder", "own:make", "--backends", "compile,onnxruntime"),
        *("--precisions", "fp32", "--target", "sm_89", "--json", "ladder.json"),
    )
    text = (there.work / "ladder.json").read_text()
    reached = re.findall(r'"verified_to":\s*"(L\d)"', text)
    shown = "L5" in reached if there.traces() else '"dep_missing"' in text
    must("crashed" not in text and shown, f"reached {reached}:\n{text[:3000]}")
    return f"reached {' '.join(reached)}"


def artefacts(there: Environment) -> str:
    """A build runs without its source, in sizes that its manifest calls free."""
    folders = [
        next(
            path.parent for path in (there.work / "first").rglob("manifest.json") if path.parent.name == name
        )
        for name in (f"compile-fp32{PACKAGE.removeprefix('compile')}", "onnxruntime-fp32")
    ]
    there.hotlap("bench-artefact", str(folders[0]), "--budget", "2s")
    shapes = there.run(str(there.python), "-c", OPEN, *map(str, folders))
    must(shapes.split("\n")[:2] == ["(1, 10) (3, 10)"] * 2, f"shapes of the outputs: {shapes}")
    return "a package and an ONNX file"


def train(there: Environment) -> str:
    printed = there.hotlap("train", "mlp")
    must("epoch 20 of 20" in printed, f"no last epoch:\n{printed}")
    return "one of our models, by Lightning"


STEPS: tuple[Callable[[Environment], str], ...] = (
    doctor, run, int8, gate, review, kernels, ladder, artefacts, train,
)  # fmt: skip


def smoke(there: Environment) -> dict[str, dict[str, Any]]:
    """Returns for each step what was seen, whether it passed, and its seconds; prints each."""
    (there.work / "own.py").write_text(MODEL)
    (there.work / "own_kernel.py").write_text(KERNEL)
    outcome: dict[str, dict[str, Any]] = {}
    for step in STEPS:
        start = time.perf_counter()
        try:
            words, passed = step(there), True
        except Broken as broken:
            words, passed = str(broken), False
        except (KeyError, ValueError, IndexError, StopIteration, OSError) as missing:
            words, passed = f"what it wrote is not as expected: {missing!r}", False
        seconds = round(time.perf_counter() - start, 1)
        outcome[step.__name__] = {"passed": passed, "seen": words, "seconds": seconds}
        print(f"  {'passed' if passed else 'FAILED'}  {step.__name__} ({seconds} s): {words}", flush=True)
    return outcome


def least(bound: re.Match[str]) -> str:
    """Returns the first minor version that a lower bound allows: >=2 becomes ==2.0.*."""
    return f"=={bound[1]}.{bound[2] or 0}{bound[3] or '.*'}"


def oldest() -> list[str]:
    """Returns the dependencies of pyproject.toml but torch, each at the least version it may
    have.
    """
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return [
        re.sub(r">=(\d+)(?:\.(\d+))?([\d.]*)", least, dependency)
        for dependency in dependencies
        if not dependency.startswith("torch>")
    ]


def install(python: str, folder: Path, requirements: list[str], extras: str = "") -> Path:
    """Returns the interpreter of a new environment with hotlap, its extras and the requirements.

    Raises Uninstalled.
    """
    # A constraint of this machine's would hold back the version that is asked for.
    variables = {**os.environ, "PIP_CONSTRAINT": os.devnull}
    interpreter = folder / "bin" / "python"
    for command in (
        [python, "-m", "venv", str(folder)],
        [str(interpreter), "-m", "pip", "install", "-q", "-e", f"{ROOT}{extras}", *requirements],
    ):
        ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        if ended.returncode:
            lines = [line for line in (ended.stderr or ended.stdout).splitlines() if line.strip()]
            raise Uninstalled("\n".join(lines[-5:]))
    return interpreter


def tried(name: str, python: str, requirements: list[str], existing: Path | None) -> dict[str, Any]:
    """Returns what was seen of one environment, which is removed again unless it was there."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="hotlap-versions-") as folder:
        interpreter = existing or install(python, Path(folder) / "environment", requirements)
        installed_s = round(time.perf_counter() - start, 1)
        (Path(folder) / "work").mkdir()
        there = Environment(interpreter, Path(folder) / "work")
        versions = there.versions()
        words = ", ".join(f"{package} {version}" for package, version in versions.items())
        print(f"{name}: {words}; {installed_s} s to install", flush=True)
        steps = smoke(there)
        seconds = round(sum(step["seconds"] for step in steps.values()), 1)
        print(f"{name}: {seconds} s of steps", flush=True)
    return {"versions": versions, "install_s": installed_s, "steps": steps}


def table(file: Path) -> str:
    """Returns what was seen as a table in Markdown."""
    lines = [
        "| torch | Triton | Python | ONNX Runtime | Lightning | numpy | steps passed | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for seen in json.loads(file.read_bytes()).values():
        versions, steps = seen["versions"], seen["steps"].values()
        runtime = versions.get("onnxruntime-gpu") or versions.get("onnxruntime")
        cells = (
            *(versions["torch"], versions["triton"], versions["Python"], runtime, versions["lightning"]),
            *(versions["numpy"], f"{sum(step['passed'] for step in steps)} of {len(steps)}"),
            f"{sum(step['seconds'] for step in steps):.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    names = ", ".join(f"`{step.__name__}`" for step in STEPS)
    return "\n".join([*lines, "", f"Steps (`bench/versions.py`): {names}."])


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("torch", nargs="*", help="minor versions, such as 2.15")
    parser.add_argument("--oldest", action="store_true", help="other dependencies at their least version")
    parser.add_argument("--in", dest="existing", type=Path, metavar="FOLDER")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args(words)
    if arguments.table:
        print(table(arguments.table))
        return 0
    if bool(arguments.torch) == bool(arguments.existing):
        parser.error("name versions of torch, or one environment with --in")
    everything: dict[str, Any] = {}
    if arguments.json and arguments.json.exists():
        everything = json.loads(arguments.json.read_bytes())
    status = 0
    existing = arguments.existing.absolute() / "bin" / "python" if arguments.existing else None
    for version in arguments.torch or [str(arguments.existing)]:
        name = f"torch {version}{', oldest' if arguments.oldest else ''}" if arguments.torch else version
        requirements = [f"torch=={version}.*", *(oldest() if arguments.oldest else ())]
        try:
            everything[name] = tried(name, arguments.python, requirements, existing)
        except Uninstalled as lacking:
            print(f"{name}: not installed, so nothing is known of it: is there a network?\n{lacking}")
            status = 2
            continue
        if not all(step["passed"] for step in everything[name]["steps"].values()):
            status = status or 1
        if arguments.json:
            arguments.json.write_text(json.dumps(everything, indent=1) + "\n")
    return status


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an environment has gigabytes to remove
    sys.exit(main())
