"""How long a user of `hotlap optimize` waits: for the first line, for a first provisional answer,
and for the artefact of their own module, loaded.

    python bench/first_answer.py [--budget 4m]
        two runs, each of about the budget; writes docs/results/first_answer.json
    python bench/first_answer.py --table docs/results/first_answer.json
        the table of docs/optimize.md

Each run is a process of its own in an empty folder, without anything built before. The first is the
command; the second is a program of six lines that hands over a module in memory and calls what it
gets back. `load` is the load average of the minute before.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hotlap.perf.machine import cores, survey

FILE = Path(__file__).resolve().parent.parent / "docs" / "results" / "first_answer.json"
# 1 (0.1.0): first version.
SCHEMA = 1
MODEL = """
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
        )

def make():
    return Net().eval(), torch.randn(1, 3, 64, 64)
"""
PROGRAM = """\
import numpy, torch, hotlap
from mine import Net
net = Net().eval()
model = hotlap.optimize(net, torch.randn(1, 3, 64, 64), budget="{budget}", out="out")
(logits,) = model(numpy.ones((1, 3, 64, 64), "float32"))
print("loaded", logits.shape)
"""
# What a line that is waited for looks like: any; a row of the first look; the end of the program.
MOMENTS = {
    "first line": re.compile(r"."),
    "first provisional answer": re.compile(r"\S+ \S+ \(library defaults\) .*(ok|noisy)"),
    "confirmed": re.compile(r".*times as fast as"),
    "loaded": re.compile(r"loaded \(1, 10\)"),
}
# What is aimed at, s.
AIMS = {"first line": 2.0, "first provisional answer": 60.0, "loaded": 360.0}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budget", default="4m")
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--table", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.table:
        print(*table(json.loads(arguments.table.read_text())), sep="\n")
        return
    here = survey.collect(cores.count(), "keep")
    program = PROGRAM.format(budget=arguments.budget)
    command = ["-m", "hotlap.perf.cli", "optimize", "mine:make", "--budget", arguments.budget, "-o", "out"]
    content = {
        "schema": SCHEMA,
        "machine": here.hardware,
        "libraries": here.libraries,
        "budget": arguments.budget,
        "lines": len(program.splitlines()),
        "runs": {"command": waited(command), "program": waited(["-c", program])},
    }
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")


def waited(arguments: Sequence[str]) -> dict[str, Any]:
    """Returns when each moment came, s, of a Python that is started with these arguments."""
    with tempfile.TemporaryDirectory(prefix="first-answer-") as folder:
        (Path(folder) / "mine.py").write_text(MODEL)
        environment = {**os.environ, "HOTLAP_RUNS": str(Path(folder) / "runs"), "PYTHONUNBUFFERED": "1"}
        load, start = os.getloadavg()[0], time.monotonic()
        with subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            seen: dict[str, float] = {}
            for line in process.stdout:
                for name, pattern in MOMENTS.items():
                    if name not in seen and pattern.match(line):
                        seen[name] = round(time.monotonic() - start, 2)
        ended_s = round(time.monotonic() - start, 2)
    return {"load": load, "exit": process.returncode, "seconds": {**seen, "end": ended_s}}


def table(content: dict[str, Any]) -> Iterator[str]:
    """Yields the lines of the table in Markdown."""
    yield f"{content['machine']}; torch {content['libraries']['torch']}; --budget {content['budget']}."
    yield ""
    yield "| waited for | `hotlap optimize` | hotlap.optimize, in a program | aim |"
    yield "|---|---|---|---|"
    runs = content["runs"]
    for name in (*MOMENTS, "end"):
        cells = [f"{run['seconds'][name]:.1f} s" if name in run["seconds"] else "" for run in runs.values()]
        aim = f"{AIMS[name]:g} s" if name in AIMS else ""
        yield f"| {name} | {' | '.join(cells)} | {aim} |"
    yield ""
    loads = " and ".join(f"{run['load']:.1f}" for run in runs.values())
    yield f"The program has {content['lines']} lines; load before the runs {loads}."


if __name__ == "__main__":
    main()
