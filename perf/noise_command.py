"""`hotlap noise`: what a run says of this machine's noise, and what the gate can detect with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BLOCKS = (6, 16)
LEGEND = (
    "rounds, workers: standard deviation of a latency from sample to sample and from worker to worker. ratio to eager: of a block. found: what hotlap ab calls a "
    "regression, if its two sides differ as the case and eager do; of one backend against itself, eager under library defaults says more. switches: involuntary, a "
    "sample. faults: a call."
)


def noise(
    results: Annotated[Path | None, typer.Argument(help="A results.json. Default: the latest run.")] = None,
    tolerance: Annotated[float, typer.Option(help="Of the gate, as a share.", min=0.0, max=1.0)] = 0.03,
) -> int:
    """Show where the spread of a run comes from, and the slow-down that hotlap ab would find with 90 % power."""
    from rich.table import Table
    from rich.text import Text

    from . import report, result, rundir, variance
    from .cases import BASELINE

    found = result.read(results or rundir.latest() / "results.json")
    console = report.console()
    table = Table(box=None, pad_edge=False)
    heads = ("case", "rounds", "workers", "ratio to eager", *(f"found after {blocks} blocks" for blocks in BLOCKS), "lag-1", "switches", "faults", "steal")
    for head in heads:
        table.add_column(head, justify="left" if head == "case" else "right")
    every, skipped, priorities = [], [], []
    for one in found.results:
        if "latency" not in one.metrics:
            continue
        base = next((other for other in found.results if other.race_id == one.race_id and other.case.backend == BASELINE and not other.case.options), None)
        try:
            seen = variance.spread(one, base)
        except ValueError as error:
            skipped.append(str(error))
            continue
        every.append(seen)
        priorities.append(one.disturbance.priority if one.disturbance else "")
        finds = ["" if seen.ratio is None else f"{variance.detectable(seen.ratio, blocks, tolerance):.1%}" for blocks in BLOCKS]
        ratio = "" if seen.ratio is None else f"{seen.ratio:.1%}"
        rest = (f"{seen.correlation:.2f}", f"{seen.switches:.2f}", f"{seen.faults:.0f}", f"{seen.steal:.2%}")
        table.add_row(Text(one.case.id), f"{seen.rounds:.1%}", f"{seen.blocks:.1%}", ratio, *finds, *rest)
    for line in report.setting(found):
        console.print(line, highlight=False)
    console.print(table)
    console.print(f"{LEGEND} A slow-down is found in 90 %, at a tolerance of {tolerance:.0%}.", highlight=False)
    for text in [*skipped, *(variance.advice(every, priorities) if every else ["no case has three blocks: nothing to say"])]:
        console.print(f"  {text}", highlight=False, markup=False)
    return 0
