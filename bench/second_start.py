"""How much faster does a second process start than the first, which compiled the case?

The second finds the compiled case in its folder.

    python bench/second_start.py [--workloads mlp,resnet,vit,gpt] [--settings default,freezing,...]
        about 1 minute a line

One cold and one later process for each line, one after the other, each with empty caches but the
case's own folder. cold: build and first call; later: load and first call. Both without the imports:
of torch, dynamo and the model, but of torch alone where a package is loaded; `process` is the ratio
of the whole processes' times, with them. One run, no interval: ratios near 3 are not known to the
tenth. Weights are seeded where nothing was trained.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Name -> the precision where it is not fp32, and the options of the backend compile.
SETTINGS = {
    "default": "",
    "freezing": "[freezing:on]",
    "aoti": "[package:aoti]",
    "aoti+freezing": "[freezing:on][package:aoti]",
    "int8": "int8",
    "aoti+int8": "int8[package:aoti]",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", default="mlp,resnet,vit,gpt")
    parser.add_argument("--settings", default="default,freezing,aoti,aoti+freezing")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    print("| workload | setting | cold s | later s | ratio | process |", flush=True)
    print("|---|---|---|---|---|---|", flush=True)
    for workload in arguments.workloads.split(","):
        for setting in arguments.settings.split(","):
            print(row(workload, setting), flush=True)


def row(workload: str, setting: str) -> str:
    """Runs one case cold and once more, and returns the table's line."""
    precision = "int8" if setting.endswith("int8") else "fp32"
    options = SETTINGS[setting].removeprefix("int8")
    case = f"{workload}/compile/{precision}/b1/cpu/inference{options}"
    with tempfile.TemporaryDirectory() as folder:
        cold, cold_process = run("cold", case, folder)
        later, later_process = run("later", case, folder)
    ratio, process = cold / later, cold_process / later_process
    return f"| {workload} | {setting} | {cold:.2f} | {later:.2f} | {ratio:.1f} | {process:.1f} |"


def run(which: str, case: str, folder: str) -> tuple[float, float]:
    """Seconds that the child measured, and of its whole process; which is "cold" or "later"."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "--child", which, case, folder],
        capture_output=True,
        text=True,
        check=False,
    )
    process_s = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{case}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1]), process_s


def child(which: str, text: str, folder: str) -> None:
    """Builds the case in the folder, or loads it from there, and prints the seconds it took."""
    import torch

    from hotlap.perf.backends import compile as backend
    from hotlap.perf.lookup import workloads
    from hotlap.perf.terms.case import Case
    from hotlap.perf.terms.contract import Artefact, modules

    case, later = Case.parse(text), which == "later"
    # What compiles imports dynamo, as the case without options does.
    for name in modules(backend, case if later else Case.parse(text.partition("[")[0])):
        importlib.import_module(name)
    workload = None
    if not (later and backend.SELF_CONTAINED(case)):
        workload = workloads.load(workloads.Reference(case.workload))
    start = time.perf_counter()
    if not later:
        backend.build(workload, case, Path(folder), lambda name: contextlib.nullcontext())
    # The build of torch.compile ends with a first call, that of a package does not.
    if later or case.option("package", "off") == "aoti":
        step = backend.load(Artefact(case, Path(folder), torch.get_num_threads(), lambda: workload, Path()))
        step.fetch(step.call(step.place(step.about.inputs)))
    print(json.dumps(time.perf_counter() - start))


if __name__ == "__main__":
    main()
