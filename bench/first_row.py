"""How long until `hotlap run` of a user's own small model prints the first row of a table?

    python bench/first_row.py [--runs 3]
        about a minute a run; writes docs/results/first_row.json after each
    python bench/first_row.py --table docs/results/first_row.json
        the table of docs/own-model.md

Each run is a process of its own in an empty folder, with all default backends of this machine and
no build of an earlier run; it is stopped by Ctrl-C once the row is there. The files that it reads
may be in the page cache. `load` is the load average of the minute before a run: 0 is a machine that
did nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from hotlap.perf.machine import survey

FILE = Path(__file__).resolve().parent.parent / "docs" / "results" / "first_row.json"
# 1 (0.1.0): first version.
SCHEMA = 1
WORKLOAD = "small:make"
MODEL = """
import torch
from torch import nn

def make():
    layers = [nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)]
    return nn.Sequential(*layers), torch.randn(1, 64)
"""
# A row begins with its case; progress begins with a time, and other lines with other words.
ROW = f"{WORKLOAD} "
# Longest wait for a row, s, and for the end after Ctrl-C.
PATIENCE_S = 600.0
END_S = 60.0


class FirstRow(NamedTuple):
    """One run. load: before it. row: the line as it was printed."""

    seconds: float
    load: float
    row: str


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--table", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text())), end="")
        return
    runs: list[FirstRow] = []
    for _ in range(arguments.runs):
        with tempfile.TemporaryDirectory(prefix="first-row-") as folder:
            runs.append(first_row(Path(folder)))
        print(f"{runs[-1].seconds:.1f} s at load {runs[-1].load:.1f}: {runs[-1].row}", flush=True)
        write(arguments.out, runs)


def first_row(folder: Path) -> FirstRow:
    """Runs in the folder until the first row is printed. Raises RuntimeError where the run ends, or
    is ended after PATIENCE_S, without one.
    """
    (folder / f"{WORKLOAD.partition(':')[0]}.py").write_text(MODEL)
    environment = {**os.environ, "HOTLAP_RUNS": str(folder / "runs")}
    load, start = os.getloadavg()[0], time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "hotlap.perf.cli", "run", WORKLOAD],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )
    assert process.stdout is not None
    patience = threading.Timer(PATIENCE_S, process.kill)
    patience.start()
    try:
        for line in process.stdout:
            if line.startswith(ROW):
                return FirstRow(time.monotonic() - start, load, " ".join(line.split()))
        raise RuntimeError(f"hotlap run ended without a row, exit {process.wait(END_S)}")
    finally:
        patience.cancel()
        end(process)


def hear_ctrl_c() -> None:
    """A job in the background of a script ignores it, and what it starts would too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def end(process: subprocess.Popen[str]) -> None:
    """Stops the run as a person would, and reads what it still prints."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def write(file: Path, runs: list[FirstRow]) -> None:
    here = survey.collect(len(os.sched_getaffinity(0)), "keep")
    about = {
        "schema": SCHEMA,
        "machine": here.hardware,
        "libraries": here.libraries,
        "command": f"hotlap run {WORKLOAD}",
        "model": "two linear layers, 64 to 128 to 10",
    }
    file.write_text(json.dumps({**about, "runs": [run._asdict() for run in runs]}, indent=1) + "\n")


def table(file: dict[str, Any]) -> str:
    """The table in Markdown."""
    runs = [FirstRow(**run) for run in file["runs"]]
    seconds, loads = [run.seconds for run in runs], [run.load for run in runs]
    torch = file["libraries"]["torch"]
    return "\n".join(
        [
            f"{file['machine']}; torch {torch}. `{file['command']}`, {file['model']}; every default backend.",
            "",
            "| runs | seconds to the first row, mean | least | most | load before the runs |",
            "|---|---|---|---|---|",
            f"| {len(runs)} | {statistics.fmean(seconds):.1f} | {min(seconds):.1f} | {max(seconds):.1f}"
            f" | {min(loads):.1f} to {max(loads):.1f} |",
            "",
        ]
    )


if __name__ == "__main__":
    main()
