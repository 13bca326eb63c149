"""Trains all our networks from nothing, twice, and compares the two to the bit.

python -m bench.retrain
    one command, two trainings at once; writes docs/results/retrain.json
python -m bench.retrain --table docs/results/retrain.json
    the table of docs/models/architecture.md
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hotlap.models import checkpoint, runs
from hotlap.models.catalog import names
from hotlap.perf.machine import survey

FILE = Path(__file__).resolve().parent.parent / "docs" / "results" / "retrain.json"
# 1 (0.1.0): first version.
SCHEMA = 1
COMMAND = (sys.executable, "-m", "hotlap.perf.cli", "train")


def trained_twice(name: str, folder: Path) -> dict[str, Any]:
    """Trains a network in two processes side by side, and returns its scores and which tensors of
    the two checkpoints differ.
    """
    start = time.monotonic()
    processes = [
        subprocess.Popen(
            [*COMMAND, name],
            env={**os.environ, "HOTLAP_RUNS": str(folder / side)},
            stdout=subprocess.DEVNULL,
        )
        for side in ("once", "again")
    ]
    if statuses := {process.wait() for process in processes} - {0}:
        raise SystemExit(f"a training of {name} ended with {statuses}")
    seconds = time.monotonic() - start
    finished = [next((folder / side / "train").glob(f"*/{runs.METRICS}")) for side in ("once", "again")]
    metrics = [json.loads(path.read_bytes()) for path in finished]
    states = [checkpoint.read(path.parent / runs.CHECKPOINT)["state_dict"] for path in finished]
    return {
        "validation": metrics[0]["validation"],
        "test": metrics[0]["test"],
        "same_scores": metrics[0]["validation"] == metrics[1]["validation"],
        "tensors": len(states[0]),
        "different": [key for key in states[0] if not states[0][key].equal(states[1][key])],
        "seconds": round(seconds, 1),
    }


def table(path: Path) -> str:
    """Returns the stored scores in Markdown."""
    content = json.loads(path.read_bytes())
    total = sum(each["seconds"] for each in content["networks"].values())
    lines = [
        f"{content['hardware']}. Both trainings of a network side by side, one thread each; {total / 60:.1f}"
        " min for all.",
        "",
        "| network | validation | test | tensors that differ | both took |",
        "|---|---|---|---|---:|",
    ]
    for name, each in content["networks"].items():
        cells = (name, words(each["validation"]), words(each["test"]))
        differ = f"{len(each['different'])} of {each['tensors']}"
        lines.append(f"| {' | '.join(cells)} | {differ} | {each['seconds']:.0f} s |")
    return "\n".join(lines)


def words(scores: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in scores.items())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    if arguments.table:
        print(table(arguments.table))
        return
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "hardware": survey.collect(1, "default").hardware,
        "networks": {},
    }
    for name in names():
        with tempfile.TemporaryDirectory() as folder:
            content["networks"][name] = trained_twice(name, Path(folder))
        print(name, content["networks"][name], flush=True)
    FILE.write_text(json.dumps(content, indent=1) + "\n")
    print(table(FILE))


if __name__ == "__main__":
    main()
