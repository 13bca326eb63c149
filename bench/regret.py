"""What a choice within a budget misses: the chosen way against the three fastest of a race of all
candidates, all four raced again on fresh blocks.

    python -m bench.regret [NAME ...] [--batches 1,16] [--budget 5m] [--exhaustive 10m]
        writes regret.json in the folder of runs (--out) after each cell and leaves out those that
        are in it; with names it measures these anew
    python -m bench.regret --table FILE
        the table

All candidates of fp32 (perf/choose/candidates.py) are built and raced by `hotlap run`, without
elimination, for --exhaustive; then the chosen way and the three fastest for a quarter of it. The
regret is the chosen one's time over the least of the four, minus one, in that last race: nought
where the chosen one is the fastest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench import stored
from hotlap.perf.artefacts import opening
from hotlap.perf.choose import candidates
from hotlap.perf.machine import cores
from hotlap.perf.reports import report
from hotlap.perf.stats import estimates
from hotlap.perf.terms import escape, result, units
from hotlap.perf.terms.case import Case, Plan

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "runs" / "regret.json"
OWN = ("mlp", "resnet", "vit", "gpt")
NAMES = (*OWN, "resnet18", "mobilenetv3")
# How many of the exhaustive race are raced again, and the share of its budget for that.
FASTEST, AGAIN = 3, 0.25
# What is aimed at: the mean over all cells, and the worst.
MEAN, WORST = 0.015, 0.05
# 1 (0.1.0): first version.
SCHEMA = 1


def main() -> None:
    arguments = stored.arguments(__doc__, FILE, batches="1,16", budget="5m", exhaustive="10m")
    if arguments.table:
        print(*table(json.loads(arguments.table.read_text())), sep="\n")
        return
    asked = cells(arguments.names, arguments.batches)
    stored.fill(
        arguments.out,
        "cells",
        SCHEMA,
        list(cells(NAMES, "1,16")),
        list(asked),
        lambda key: measured(key, arguments.budget, units.seconds(arguments.exhaustive)),
    )


def cells(names: Iterable[str], batches: str) -> Iterator[str]:
    """Yields `model bN` for each model and batch."""
    for name in names:
        yield from (f"{name} b{batch}" for batch in batches.split(","))


def measured(key: str, budget: str, exhaustive_s: float) -> dict[str, Any]:
    """Returns the times of the last race of one cell, or what failed."""
    name, _, batch = key.rpartition(" b")
    workload = name if name in OWN else f"bench.public:{name}"
    plan = Plan(threads=cores.count())
    every = candidates.candidates(workload, int(batch), "cpu", ("fp32",), plan)
    with tempfile.TemporaryDirectory(prefix="regret-") as place:
        folder = Path(place)
        asked = ["--target", "cpu", "--batch", batch, "--precisions", "fp32"]
        chose = hotlap(folder, "optimize", workload, *asked, "--budget", budget, "-o", str(folder / "out"))
        if not (folder / "out" / "manifest.json").exists():
            return {"failed": chose}
        chosen = opening.checked(folder / "out").parsed()
        all_of_them = raced(folder / "all", workload, every, asked, exhaustive_s)
        if isinstance(all_of_them, str):
            return {"failed": all_of_them}
        times = {
            each.case: each.metrics["latency"].centre
            for each in all_of_them.results
            if each.case in every and "latency" in each.metrics
        }
        fastest = sorted(times, key=lambda case: times[case])[:FASTEST]
        again = raced(folder / "again", workload, [chosen, *fastest], asked, AGAIN * exhaustive_s)
        if isinstance(again, str):
            return {"failed": again}
    return {
        "setting": report.setting(again),
        "budget": budget,
        "way": chosen.spec,
        "tried": len(times),
        "latencies_s": {
            each.case.spec: each.metrics["latency"].values
            for each in again.results
            if each.case in (chosen, *fastest) and "latency" in each.metrics
        },
    }


def raced(
    out: Path, workload: str, cases: Iterable[Case], asked: Iterable[str], budget_s: float
) -> result.Results | str:
    """Returns the results of one race of these cases beside eager, or what went wrong."""
    backends = ",".join(dict.fromkeys(["eager", *(case.spec for case in cases)]))
    answer = hotlap(
        out.parent,
        "run",
        workload,
        *asked,
        "--backends",
        backends,
        "--budget",
        f"{budget_s:g}s",
        "--out",
        str(out),
    )
    file = out / "results.json"
    return result.read(file) if file.exists() else answer


def hotlap(place: Path, *command: str) -> str:
    """Runs a command of hotlap. Returns the last line that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "hotlap.perf.cli", *command],
        cwd=ROOT,
        env={**os.environ, "HOTLAP_RUNS": str(place / "runs")},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[-1] if lines else f"exit status {done.returncode}"


def fastest(cell: dict[str, Any]) -> str:
    """Returns the fastest way of the last race; of two that are as fast, the chosen one."""
    centres = {
        spec: estimates.median([estimates.middle(block) for block in blocks if block])
        for spec, blocks in cell["latencies_s"].items()
    }
    return min(centres, key=lambda spec: (centres[spec], spec != cell["way"]))


def regret(cell: dict[str, Any]) -> estimates.Estimate:
    """Returns the chosen way's time over the fastest one's, with its interval; 1 where they are the
    same.
    """
    return estimates.ratio(cell["latencies_s"][fastest(cell)], cell["latencies_s"][cell["way"]])


def table(content: dict[str, Any]) -> Iterator[str]:
    """Yields the lines of the table in Markdown, and the mean and the worst."""
    answers = {key: cell for key, cell in content["cells"].items() if "latencies_s" in cell}
    for line in dict.fromkeys(line for cell in answers.values() for line in cell["setting"]):
        yield f"{escape.markdown(line)}."
    yield ""
    yield "| model | chosen | candidates raced | fastest of the last race | regret |"
    yield "|---|---|---|---|---|"
    lost = []
    for key, cell in answers.items():
        value = regret(cell)
        lost.append(value.centre - 1)
        best = fastest(cell)
        names = [escape.markdown(text) for text in (key, cell["way"])]
        interval = "" if best == cell["way"] else f" [{value.low - 1:.1%}, {value.high - 1:.1%}]"
        yield (
            f"| {' | '.join(names)} | {cell['tried']} | {escape.markdown(best)}"
            f" | {value.centre - 1:.1%}{interval} |"
        )
    if lost:
        yield ""
        yield (
            f"- over {len(lost)} cells: mean {estimates.fmean(lost):.1%} of {MEAN:.1%} aimed at, worst"
            f" {max(lost):.1%} of {WORST:.0%}"
        )
    for key, cell in content["cells"].items():
        if "failed" in cell:
            yield f"- {key}: {escape.markdown(cell['failed'])}"


if __name__ == "__main__":
    main()
