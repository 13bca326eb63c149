"""What `hotlap gate` tells of files of two jobs that have no pace: benches of known truth go
through the gate's own tests.

    python -m bench.two_jobs_simulation [--trials 1000]
        writes docs/results/two_jobs_simulation.json
    python -m bench.two_jobs_simulation --table docs/results/two_jobs_simulation.json
        the table of docs/gate.md

Each run of a side is a job: all its benches are faster or slower by what jobs differ by (sd 10 %),
and each by what its own process differs by. HEAD has changed nothing, or one bench, or all.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hotlap.perf.gate.metrics import metrics
from hotlap.perf.gate.policy import Policy
from hotlap.perf.gate.shift import levelled
from hotlap.perf.readers.runs import FEWEST
from hotlap.perf.readers.side import LATENCY, Known, Sample

FILE = Path(__file__).resolve().parent.parent / "docs" / "results" / "two_jobs_simulation.json"
# How jobs differ: the standard deviation of the log, as gate.toml has it by default.
JOB_SD = 0.10
# What one process says of its own error.
WITHIN = 0.003
# Batch means behind that.
FREEDOM = 15


class World(NamedTuple):
    """What a side consists of."""

    benches: int
    runs: int
    # Sd of the log by which processes of the same bench differ.
    process: float
    # Whether some differ by far more: Student's t of 3 degrees of freedom.
    heavy: bool = False

    @property
    def name(self) -> str:
        runs = "one run" if self.runs == 1 else f"{self.runs} runs"
        tails = ", heavy tails" if self.heavy else ""
        return f"{self.benches} benches, {runs} a side, processes differ by {self.process:.0%}{tails}"


WORLDS = (
    World(3, 1, 0.01),
    World(6, 1, 0.01),
    World(12, 1, 0.01),
    World(12, 1, 0.03),
    World(12, 1, 0.01, heavy=True),
    World(50, 1, 0.01),
    World(3, 5, 0.01),
    World(12, 5, 0.01),
    World(12, 5, 0.03),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--table", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text())), end="")
        return
    cells = []
    for world in WORLDS:
        cells.append({"world": world.name, **cell(world, arguments.trials)})
        print(cells[-1], flush=True)
    FILE.write_text(json.dumps({"trials": arguments.trials, "cells": cells}, indent=1) + "\n")


def cell(world: World, trials: int) -> dict[str, float]:
    """Returns the shares of pairs of files in which: some bench alarms although none changed; all
    pass then; the one that is 10 or 20 % slower is found; another alarms beside it.
    """
    rng = np.random.default_rng(7)
    count = {"alarm": 0, "all pass": 0, "found 10%": 0, "found 20%": 0, "beside it": 0}
    for _ in range(trials):
        same = verdicts(world, 0.0, rng)
        count["alarm"] += "regression" in same
        count["all pass"] += set(same) == {"pass"}
        for slower in (0.10, 0.20):
            changed = verdicts(world, slower, rng)
            count[f"found {slower:.0%}"] += changed[0] == "regression"
            count["beside it"] += "regression" in changed[1:]
    return {name: hits / trials / (2 if name == "beside it" else 1) for name, hits in count.items()}


def verdicts(world: World, slower: float, rng: np.random.Generator) -> list[str]:
    """Returns the gate's verdict on each bench where HEAD's first is slower by this share."""
    base, head = side(world, 0.0, rng), side(world, slower, rng)
    pairs = levelled(list(zip(base, head, strict=True)), (world.runs, world.runs))
    findings, _ = metrics(pairs, Policy(), Policy().alpha)
    return [finding.verdict for finding in findings if not finding.case.startswith("all ")]


def side(world: World, slower: float, rng: np.random.Generator) -> list[Known]:
    shape = (world.benches, world.runs)
    jobs = JOB_SD * rng.standard_normal(world.runs)
    noise = rng.standard_t(3, shape) / math.sqrt(3) if world.heavy else rng.standard_normal(shape)
    logs = math.log(1e-3) + jobs + world.process * noise + WITHIN * rng.standard_normal(shape)
    logs[0] += math.log1p(slower)
    return [
        Known(f"bench {number}", None, metrics={LATENCY: sample([float(log) for log in row])})
        for number, row in enumerate(logs)
    ]


def sample(logs: list[float]) -> Sample:
    centre = math.exp(sum(logs) / len(logs))
    if len(logs) >= FEWEST:
        return Sample("s", "lower", centre, tuple(logs), of_runs=True)
    return Sample("s", "lower", centre, error=WITHIN, freedom=FREEDOM)


def table(results: dict[str, Any]) -> str:
    names = ("alarm", "all pass", "found 10%", "found 20%", "beside it")
    lines = [
        f"Tolerance 3 %, alpha 5 %, jobs differ by 10 %, {results['trials']} pairs of sides a cell.",
        "",
        "| | nothing changed: an alarm | all pass | one bench 10 % slower: found | 20 %: found |"
        " an alarm beside it |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {each['world']} | " + " | ".join(f"{each[name]:.1%}" for name in names) + " |"
        for each in results["cells"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
