"""What `hotlap optimize` gives: the chosen way beside eager, torch.compile, ONNX Runtime and
OpenVINO as their users start them, raced again on fresh blocks that the choice has not seen.

    python -m bench.chosen [NAME ...] [--batches 1,16] [--budget 5m] [--priority normal]
        writes docs/results/chosen.json after each cell and leaves out those that are in it; with
        names it measures these anew
    python -m bench.chosen --table docs/results/chosen.json
        the table of docs/optimize.md

A cell is a model, a batch size and what is allowed: `exact` (fp32 alone), or `drop` (bf16 and int8
too, within DROP of the task metric), which needs an Evaluation. It takes about the budget, and more
where the libraries' own defaults are slow to build. The models of bench.public need timm, those of
bench.real the extra [real].
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import public, real, stored
from hotlap.perf.artefacts import opening
from hotlap.perf.lookup.cases import LIBRARY_DEFAULTS
from hotlap.perf.reports import report
from hotlap.perf.reports.report import way
from hotlap.perf.stats import estimates
from hotlap.perf.terms import escape, result
from hotlap.perf.terms.result import Result

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs" / "results" / "chosen.json"
OWN = ("mlp", "resnet", "vit", "gpt")
# What of the task metric may be lost where bf16 and int8 are allowed.
DROP = "drop<=0.5%"
ALLOWED = ("exact", "drop")
# A ratio whose interval is wider, on the log scale, is noisy.
HALF_WIDTH = 0.02
# The choice is never meant to be slower than the best default by more.
LEAST = 0.97
# The error of all bounds together.
ALPHA = 0.05
# Exit statuses of `hotlap optimize` with an answer: confirmed, or a bound that is not shown.
ANSWERED = (0, 3)
# Longest wait for one cell, s.
PATIENCE_S = 3600.0
# 1 (0.1.0): first version.
SCHEMA = 1


class Cell(NamedTuple):
    """What is asked of `hotlap optimize`."""

    name: str
    batch: int
    allowed: str

    @property
    def key(self) -> str:
        return f"{self.name} b{self.batch} {self.allowed}"

    @property
    def reference(self) -> str:
        if self.name in OWN:
            return self.name
        return f"bench.public:{self.name}" if self.name in public.NAMES else f"bench.real:{self.name}"


def cells(names: Iterable[str], batches: Iterable[int]) -> Iterator[Cell]:
    """Yields all cells of these models; bench.public has no Evaluation."""
    for name in names:
        for batch in batches:
            for allowed in ALLOWED:
                if allowed == "exact" or name not in public.NAMES:
                    yield Cell(name, batch, allowed)


def main() -> None:
    arguments = stored.arguments(__doc__, FILE, batches="1,16", budget="5m", priority="raised")
    if arguments.table:
        print(*table(json.loads(arguments.table.read_text())), sep="\n")
        return
    everything = {cell.key: cell for cell in cells([*OWN, *public.NAMES, *real.__all__], (1, 16))}
    asked = {cell.key: cell for cell in cells(arguments.names, map(int, arguments.batches.split(",")))}
    stored.fill(
        arguments.out,
        "cells",
        SCHEMA,
        [*everything],
        [*asked],
        lambda key: measured((everything | asked)[key], arguments.budget, arguments.priority),
    )


def measured(cell: Cell, budget: str, priority: str) -> dict[str, Any]:
    """Returns what the second race of one choice found, or why there was none."""
    bounds = ["--precisions", "fp32"] if cell.allowed == "exact" else ["--subject-to", DROP]
    with tempfile.TemporaryDirectory(prefix="chosen-") as folder:
        runs, artefact = Path(folder) / "runs", Path(folder) / "artefact"
        command = [sys.executable, "-m", "hotlap.perf.cli", "optimize", cell.reference, "--target", "cpu"]
        command += ["--batch", str(cell.batch), "--budget", budget, "--priority", priority]
        command += ["--against", "all", *bounds, "-o", str(artefact)]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "HOTLAP_RUNS": str(runs)},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        if done.returncode not in ANSWERED or not artefact.exists():
            lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
            return {**cell._asdict(), "failed": lines[-1] if lines else f"exit status {done.returncode}"}
        (confirmed,) = runs.glob("choose/*/confirm/results.json")
        results = result.read(confirmed)
        chosen = opening.checked(artefact).parsed()
    return {
        **cell._asdict(),
        "setting": report.setting(results),
        "budget": budget,
        "way": f"{way(chosen)} {chosen.precision}",
        "latencies_s": {
            role(each, chosen): each.metrics["latency"].values
            for each in results.results
            if "latency" in each.metrics and role(each, chosen)
        },
        "warnings": [line for each in results.results if each.case == chosen for line in each.warnings],
    }


def role(each: Result, chosen: Any) -> str:
    """Returns `chosen`, or the library whose default a case is; empty for the runner-up, the chosen
    file without its launcher, and the pace.
    """
    if each.case == chosen:
        return "chosen"
    default = each.case.options == LIBRARY_DEFAULTS and each.case.precision == "fp32"
    return each.case.backend if default else ""


class Gain(NamedTuple):
    """How many times as fast as another the chosen way is, and the bounds that hold for all cells
    together.
    """

    centre: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return math.log(self.high / self.low) / 2


def gain(latencies: dict[str, list[list[float]]], other: str, comparisons: int) -> Gain | None:
    """Returns the chosen way's gain over another, with bounds at ALPHA over so many comparisons
    (Bonferroni); None where fewer than three blocks are shared.
    """
    pairs = estimates.paired(latencies["chosen"], latencies[other])
    logs = [math.log(estimates.middle(block)) for block in pairs]
    if len(logs) < 3:
        return None
    centre = estimates.fmean(logs)
    error = estimates.stdev(logs) / math.sqrt(len(logs))
    reach = estimates.student_t(1 - ALPHA / 2 / comparisons, len(logs) - 1) * error
    return Gain(*(math.exp(value) for value in (centre, centre - reach, centre + reach)))


def best_default(latencies: dict[str, list[list[float]]]) -> str:
    """Returns the library that is the fastest by default in the second race."""
    centres = {
        name: estimates.median([estimates.middle(block) for block in blocks if block])
        for name, blocks in latencies.items()
        if name != "chosen" and any(blocks)
    }
    return min(centres, key=lambda name: centres[name])


def table(content: dict[str, Any]) -> Iterator[str]:
    """Yields the lines of the table in Markdown, what failed, and the means."""
    answers = {key: cell for key, cell in content["cells"].items() if "latencies_s" in cell}
    yield from (f"{escape.markdown(line)}." for line in lines_of(answers.values(), "setting"))
    yield ""
    yield "| model | batch | allowed | chosen | over eager | over the best default | which | |"
    yield "|---|---|---|---|---|---|---|---|"
    gains: dict[str, list[tuple[Gain, Gain]]] = {allowed: [] for allowed in ALLOWED}
    noisy = 0
    for cell in answers.values():
        latencies = cell["latencies_s"]
        best = best_default(latencies)
        eager, default = (gain(latencies, other, 2 * len(answers)) for other in ("eager", best))
        asked = f"| {cell['name']} | {cell['batch']} | {cell['allowed']} | {escape.markdown(cell['way'])} |"
        if eager is None or default is None:
            yield f"{asked} | | {best} | fewer than three blocks |"
            continue
        gains[cell["allowed"]].append((eager, default))
        wide = default.half_width > HALF_WIDTH
        noisy += wide
        yield f"{asked} {shown(eager)} | {shown(default)} | {best} | {'noisy' if wide else ''} |"
    yield ""
    for allowed, pairs in gains.items():
        if pairs:
            yield (
                f"- {allowed}: {len(pairs)} cells; geometric mean over eager by default"
                f" {mean([eager.centre for eager, _ in pairs]):.2f}, over the best default"
                f" {mean([default.centre for _, default in pairs]):.2f}; least bound over the best default"
                f" {min(default.low for _, default in pairs):.2f}, of {LEAST} aimed at"
            )
    yield f"- noisy (half of the interval over {HALF_WIDTH:.0%}): {noisy} of {len(answers)} cells"
    for key, cell in content["cells"].items():
        if "failed" in cell:
            yield f"- {key}: {escape.markdown(cell['failed'][:300])}"


def lines_of(answers: Any, field: str) -> list[str]:
    """Returns the different lines of a field of all cells, in order."""
    return list(dict.fromkeys(line for cell in answers for line in cell[field]))


def shown(value: Gain) -> str:
    return f"{value.centre:.2f} [{value.low:.2f}, {value.high:.2f}]"


def mean(values: Sequence[float]) -> float:
    """Returns the geometric mean."""
    return math.exp(estimates.fmean([math.log(value) for value in values]))


if __name__ == "__main__":
    main()
