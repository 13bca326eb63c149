"""Does the harness measure what is there?

A stated 5 ms as 5 ms, and a model against itself as equal.

    python bench/twins.py [--races 20] [--neighbour] [--kind KIND]
        appends one line a race to docs/results/twins.jsonl
    python bench/twins.py --table docs/results/twins.jsonl
        the table of docs/measuring.md

The two real models are of the two kinds that behave differently with two threads: a stack of
convolutions with 4 MB activations, which allocators disturb, and a small MLP of 12 short parallel
regions, which spinning neighbours disturb. --neighbour loads one core with a Python loop meanwhile.
A race is one measurement: its figure is the ratio of the two entrants over its blocks.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hotlap.perf.machine import survey

if TYPE_CHECKING:
    from hotlap.perf.race.servers import Servers

HERE = Path(__file__).resolve().parent
FILE = HERE.parent / "docs" / "results" / "twins.jsonl"
# Rounds a block: calls of tens of milliseconds vary less than those of one.
ROUNDS = {"conv_stack": 20, "small_mlp": 40, "null": 12}
# It dies with its parent however that ends (prctl(2): PR_SET_PDEATHSIG, SIGKILL), or it would
# disturb the next one's idle machine.
NEIGHBOUR = "import ctypes; ctypes.CDLL(None).prctl(1, 9)\nwhile True: pass"
# How far a race's ratio may be from 1 to count as within.
LIMITS = {"idle": 0.02, "neighbour": 0.05}
# What a call of the null backend takes by default, and how far a latency may be from it.
NULL_S = 0.005
NULL_LIMIT = 0.01


def conv_stack() -> Any:
    """Four 3x3 convolutions over fp32 activations (1, 16, 256, 256) of 4 MiB, and an input."""
    import torch
    from torch import nn

    layers = [layer for _ in range(4) for layer in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())]
    module = nn.Sequential(nn.Conv2d(3, 16, 1), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return module, torch.randn(1, 3, 256, 256)


def small_mlp() -> Any:
    """12 linear layers of 256 features, each a parallel region of tens of us, and 64 rows."""
    import torch
    from torch import nn

    layers = [layer for _ in range(12) for layer in (nn.Linear(256, 256), nn.ReLU())]
    return nn.Sequential(*layers), torch.randn(64, 256)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--races", type=int, default=20)
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--kind", action="append", choices=ROUNDS)
    parser.add_argument("--neighbour", action="store_true")
    parser.add_argument("--table", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.table:
        print(table([json.loads(line) for line in arguments.table.read_text().splitlines()]), end="")
        return
    FILE.parent.mkdir(parents=True, exist_ok=True)
    lock = FILE.open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(
            f"another {Path(__file__).name} is measuring on this machine; each would be the other's neighbour"
        ) from None
    kinds = [*(arguments.kind or ROUNDS)] * arguments.races
    if not arguments.neighbour:
        run(kinds, "idle", arguments.blocks)
        return
    neighbour = subprocess.Popen([sys.executable, "-c", NEIGHBOUR])
    try:
        run(kinds, "neighbour", arguments.blocks)
    finally:
        neighbour.kill()
        neighbour.wait()


def run(kinds: list[str], condition: str, blocks: int) -> None:
    """Runs a race of each kind in order; appends it to FILE and prints a line about it."""
    from hotlap.perf.race.servers import Servers

    with tempfile.TemporaryDirectory() as folder:
        servers = Servers(Path(folder), 600, print)
        try:
            for kind in kinds:
                trial = {
                    "kind": kind,
                    "condition": condition,
                    **race(kind, blocks, Path(folder), servers),
                }
                with FILE.open("a") as file:
                    file.write(json.dumps(trial) + "\n")
                print(
                    f"{condition} {kind}: {trial['ratio']:.4f}, latency {trial['latency_s'] * 1e3:.3f} ms,"
                    f" {trial['seconds']:.0f} s",
                    flush=True,
                )
        finally:
            servers.close()


def race(kind: str, blocks: int, folder: Path, servers: Servers) -> dict[str, Any]:
    """Races two entrants of the same case, every worker forked, and returns the race's figures."""
    from hotlap.perf.lookup.workloads import Reference
    from hotlap.perf.measure.prepare import Preparation
    from hotlap.perf.race.race import Race
    from hotlap.perf.stats import estimates
    from hotlap.perf.terms.case import Case, Plan

    plan = Plan(budget_s=600, looks=(blocks,), rounds=ROUNDS[kind], tail_s=0, fresh_blocks=0, threads=2)
    here = survey.collect(plan.threads, "keep")
    start = time.monotonic()
    workload = f"bench.twins:{'small_mlp' if kind == 'null' else kind}"
    case = Case(workload, "null" if kind == "null" else "eager", batch=1 if kind == "conv_stack" else 64)
    preparation = Preparation(Reference(workload), folder / kind, plan, servers)
    try:
        preparation.refer([case], train=False, report=print, tell=lambda text: None)
        entrants = [preparation.build(case) for _ in range(2)]
        Race(entrants, plan, servers, lambda text: None, lambda: None).run()
    finally:
        preparation.close()
    for entrant in entrants:
        if entrant.refusal is not None:
            raise SystemExit(f"{kind}: {entrant.refusal}")
    base, head = (entrant.latencies() for entrant in entrants)
    ratio = estimates.ratio(base, head)
    timed = entrants[0].seen.timed
    return {
        "ratio": ratio.centre,
        "low": ratio.low,
        "high": ratio.high,
        "block_sd": estimates.stdev(
            [math.log(estimates.middle(block)) for block in estimates.paired(base, head)]
        ),
        "block_sd_unpaired": estimates.stdev(
            [math.log(estimates.median(b) / estimates.median(a)) for a, b in zip(base, head, strict=True)]
        ),
        "blocks": len(timed),
        "rounds": ROUNDS[kind],
        "latency_s": estimates.estimate(base).centre,
        "steal": statistics.fmean(block.steal for block in timed),
        "priority": timed[-1].priority,
        "seconds": time.monotonic() - start,
        "hardware": here.hardware,
        "environment": here.libraries["torch"],
    }


def table(trials: list[dict[str, Any]]) -> str:
    """The table of one row a kind and condition: races within the limit, and the spread of all."""
    lines = [f"{trials[0]['hardware']}; torch {trials[0]['environment']}, 2 threads.", ""]
    titles = (
        "entrants",
        "machine",
        "races",
        "blocks",
        "rounds",
        "within",
        "worst",
        "sd of a race",
        "sd of a block",
        "without pairs",
        "intervals that hold 1",
        "s a race",
    )
    lines += ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for condition, limit in LIMITS.items():
        for kind in ROUNDS:
            alike = [trial for trial in trials if (trial["kind"], trial["condition"]) == (kind, condition)]
            if alike:
                lines.append(row(kind, condition, limit, alike))
    return "\n".join(lines) + "\n"


def row(kind: str, condition: str, limit: float, trials: list[dict[str, Any]]) -> str:
    """The table's line for the races of one kind and condition."""
    null = kind == "null"
    allowed = NULL_LIMIT if null else limit
    ratios = [trial["latency_s"] / NULL_S if null else trial["ratio"] for trial in trials]
    errors = [abs(math.log(value)) for value in ratios]
    inside = sum(error <= math.log1p(allowed) for error in errors)
    holding = sum(trial["low"] <= 1 <= trial["high"] for trial in trials)
    cells = (
        "null of 5 ms, against 5 ms" if null else f"{kind} against itself",
        condition,
        len(trials),
        min(trial["blocks"] for trial in trials),
        trials[0]["rounds"],
        f"{inside} of {len(trials)} within {allowed:.0%}",
        f"{math.expm1(max(errors)):.2%}",
        f"{root_mean_square(errors):.2%}",
        "" if null else f"{root_mean_square([trial['block_sd'] for trial in trials]):.1%}",
        "" if null else f"{root_mean_square([trial['block_sd_unpaired'] for trial in trials]):.1%}",
        "" if null else f"{holding} of {len(trials)}",
        f"{statistics.median([trial['seconds'] for trial in trials]):.0f}",
    )
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def root_mean_square(values: list[float]) -> float:
    return math.sqrt(statistics.fmean(value * value for value in values))


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    main()
