"""Does the harness measure what is there?

A stated 5 ms as 5 ms, and a model against itself as equal.

    python bench/twins.py [--races 20] [--neighbour] [--kind KIND]
        appends one line a race to docs/results/twins.jsonl
    python bench/twins.py --table docs/results/twins.jsonl
        the table of docs/measuring.md

The two real models are of the two kinds that behave differently with two threads
(shared/MEASURING.md): a stack of convolutions with 4 MB activations, which allocators disturb, and
a small MLP of 12 short parallel regions, which spinning neighbours disturb. --neighbour loads one
core with a Python loop meanwhile. A race is one measurement: its figure is the ratio of the two
entrants over its blocks.
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
LIMITS = {"idle": 0.02, "neighbour": 0.05}
NULL_S, NULL_LIMIT = 0.005, 0.01


def conv_stack():
    """(1, 16, 256, 256) fp32 activations of 4 MiB, four 3x3 convolutions."""
    import torch
    from torch import nn

    layers = [layer for _ in range(4) for layer in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())]
    return nn.Sequential(nn.Conv2d(3, 16, 1), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.randn(
        1, 3, 256, 256
    )


def small_mlp():
    """12 linear layers of 256 features over 64 rows: each a parallel region of tens of
    microseconds.
    """
    import torch
    from torch import nn

    return nn.Sequential(
        *[layer for _ in range(12) for layer in (nn.Linear(256, 256), nn.ReLU())]
    ), torch.randn(64, 256)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--races", type=int, default=20)
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--kind", action="append", choices=ROUNDS)
    parser.add_argument("--neighbour", action="store_true")
    parser.add_argument("--table", type=Path, metavar="FILE")
    asked = parser.parse_args()
    if asked.table:
        print(table([json.loads(line) for line in asked.table.read_text().splitlines()]), end="")
        return
    from hotlap.perf.race.servers import Servers

    FILE.parent.mkdir(parents=True, exist_ok=True)
    lock = FILE.open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(
            f"another {Path(__file__).name} is measuring on this machine; each would be the other's neighbour"
        ) from None
    condition = "neighbour" if asked.neighbour else "idle"
    neighbour = subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) if asked.neighbour else None
    with tempfile.TemporaryDirectory() as folder:
        servers = Servers(Path(folder), 600, print)
        try:
            for _ in range(asked.races):
                for kind in asked.kind or ROUNDS:
                    trial = {
                        "kind": kind,
                        "condition": condition,
                        **race(kind, asked.blocks, Path(folder), servers),
                    }
                    with FILE.open("a") as file:
                        file.write(json.dumps(trial) + "\n")
                    print(
                        f"{condition} {kind}: {trial['ratio']:.4f}, latency {trial['latency_s'] * 1e3:.3f}"
                        f" ms, {trial['seconds']:.0f} s",
                        flush=True,
                    )
        finally:
            servers.close()
            if neighbour is not None:
                neighbour.kill()
                neighbour.wait()


def race(kind: str, blocks: int, folder: Path, servers: Servers) -> dict[str, object]:
    """Two entrants of the same case in one race of so many blocks, every worker forked."""
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
    made = Preparation(Reference(workload), folder / kind, plan, servers)
    try:
        made.refer([case], train=False, report=print, tell=lambda text: None)
        lanes = [made.build(case) for _ in range(2)]
        Race(lanes, plan, servers, lambda text: None, lambda: None).run()
    finally:
        made.close()
    for lane in lanes:
        if lane.refusal is not None:
            raise SystemExit(f"{kind}: {lane.refusal}")
    base, head = lanes[0].latencies(), lanes[1].latencies()
    ratio = estimates.ratio(base, head)
    steal = [block.steal for block in lanes[0].seen.timed]
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
        "blocks": len(lanes[0].seen.timed),
        "rounds": ROUNDS[kind],
        "latency_s": estimates.estimate(base).centre,
        "steal": sum(steal) / len(steal),
        "priority": lanes[0].seen.timed[-1].priority,
        "seconds": time.monotonic() - start,
        "hardware": here.hardware,
        "environment": here.libraries["torch"],
    }


def table(trials: list[dict[str, Any]]) -> str:
    """One row a kind and condition: how many races were within the limit, and the spread of what
    they found.
    """
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
            chosen = [one for one in trials if (one["kind"], one["condition"]) == (kind, condition)]
            if chosen:
                lines.append(row(kind, condition, limit, chosen))
    return "\n".join(lines) + "\n"


def row(kind: str, condition: str, limit: float, chosen: list[dict[str, Any]]) -> str:
    null = kind == "null"
    allowed = NULL_LIMIT if null else limit
    found = [one["latency_s"] / NULL_S if null else one["ratio"] for one in chosen]
    errors = [abs(math.log(value)) for value in found]
    inside = sum(error <= math.log1p(allowed) for error in errors)
    cells = (
        "null of 5 ms, against 5 ms" if null else f"{kind} against itself",
        condition,
        len(chosen),
        min(one["blocks"] for one in chosen),
        chosen[0]["rounds"],
        f"{inside} of {len(chosen)} within {allowed:.0%}",
        f"{math.expm1(max(errors)):.2%}",
        f"{root_mean_square(errors):.2%}",
        "" if null else f"{root_mean_square([one['block_sd'] for one in chosen]):.1%}",
        "" if null else f"{root_mean_square([one['block_sd_unpaired'] for one in chosen]):.1%}",
        "" if null else f"{sum(one['low'] <= 1 <= one['high'] for one in chosen)} of {len(chosen)}",
        f"{statistics.median([one['seconds'] for one in chosen]):.0f}",
    )
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def root_mean_square(values: list[float]) -> float:
    return math.sqrt(statistics.fmean(value * value for value in values))


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    main()
