"""`hotlap noise`: what disturbs this machine now, what a run says of its noise, and what the gate
can detect with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from ..gate.variance import Spread

BLOCKS = (6, 16)
LEGEND = (
    "rounds, workers: standard deviation of a latency from sample to sample and from worker to worker. ratio"
    " to eager: of a block. found: what hotlap ab calls a regression, if its two sides differ as the case and"
    " eager do; of one backend against itself, eager under library defaults says more. switches: involuntary,"
    " a sample. faults: a call."
)


def noise(
    results: Annotated[
        Path | None, typer.Argument(help="A results.json. Default: the latest run, if there is one.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Of the gate, as a share.", min=0.0, max=1.0)] = 0.03,
    budget: Annotated[str, typer.Option(help="Of hotlap ab for all these cases, such as 10m.")] = "10m",
    listen: Annotated[
        float, typer.Option(help="Seconds to listen to the machine's cores; 0: only the file.", min=0.0)
    ] = 3.0,
) -> int:
    """Show where the spread of a run and of this machine comes from, and the slow-down that hotlap
    ab would find with 90 % power.
    """
    from ..measure import rundir
    from ..reports import report
    from ..terms import units
    from ..terms.reasons import Misuse

    budget_s, console = units.seconds(budget), report.console()
    if results is None:
        try:
            results = rundir.latest() / "results.json"
        except Misuse:
            if not listen:
                raise
    if listen:
        now(console, listen)
    if results is None:
        console.print("no run yet, so nothing on cases: hotlap run", highlight=False)
        return 0
    if listen:
        console.print()
    of_a_run(console, results, tolerance, budget, budget_s)
    return 0


def now(console: Console, seconds: float) -> None:
    """This machine's cores, one after the other."""
    from rich.table import Table

    from ..machine import noise

    heard = noise.listen(seconds)
    table = Table(box=None, pad_edge=False)
    for head in ("core", "a Python loop", "to the fastest", "steal", "clock"):
        table.add_column(head, justify="right")
    fastest = min(core.centre_s for core in heard.cores)
    for core in heard.cores:
        clock = (
            "not told"
            if core.clock_hz is None
            else " to ".join(f"{value / 1e9:.2f}" for value in sorted(set(core.clock_hz))) + " GHz"
        )
        table.add_row(
            str(core.number),
            f"{core.centre_s * 1e3:.2f} ms",
            f"{core.centre_s / fastest - 1:+.1%}",
            f"{core.steal:.2%}",
            clock,
        )
    console.print("This machine now")
    console.print(table)
    seen = heard.levels
    console.print(
        f"from sample to sample {seen.samples:.1%}, from visit to visit of a core {seen.visits:.1%}, from"
        f" core to core {seen.cores:.1%}; slowest 5 % take {seen.tail:.2f}x the median; lag-1"
        f" {seen.correlation:.2f}; {heard.switches:.1f} involuntary switches a second",
        highlight=False,
    )
    for cause in heard.causes:
        console.print(f"  {cause}", markup=False, highlight=False)


def of_a_run(console: Console, path: Path, tolerance: float, budget: str, budget_s: float) -> None:
    """Each case of a results file."""
    from rich.table import Table
    from rich.text import Text

    from ..gate import variance
    from ..lookup.cases import BASELINE
    from ..measure.prepare import own_work
    from ..reports import report
    from ..terms import result

    found = result.read(path)
    every, skipped, priorities = {}, [], []
    for one in found.results:
        if "latency" not in one.metrics:
            continue
        if own_work(one.case):
            continue
        base = next(
            (
                other
                for other in found.results
                if other.race_id == one.race_id and other.case.backend == BASELINE and not other.case.options
            ),
            None,
        )
        try:
            every[one.case.id] = variance.spread(one, base)
        except ValueError as error:
            skipped.append(str(error))
            continue
        priorities.append(one.disturbance.priority if one.disturbance else "")
    raced = [seen for seen in every.values() if seen.ratio is not None]
    last = variance.affordable(raced, budget_s)
    table = Table(box=None, pad_edge=False)
    within = f"found in {budget}" + (f" ({last} blocks)" if last else "")
    heads = (
        "case",
        "rounds",
        "workers",
        "ratio to eager",
        *(f"found after {blocks} blocks" for blocks in BLOCKS),
        within,
        "a block",
        "lag-1",
        "switches",
        "faults",
        "steal",
    )
    for head in heads:
        table.add_column(head, justify="left" if head == "case" else "right", overflow="fold")
    for case, seen in every.items():
        limits = (
            []
            if seen.ratio is None
            else [variance.detectable(seen.ratio, blocks, tolerance) for blocks in BLOCKS]
        )
        if seen.ratio is not None:
            limits.append(variance.detectable(seen.ratio, last, tolerance, len(raced)))
        finds = ["-" if limit is None else f"{limit:.1%}" for limit in limits] or [""] * (len(BLOCKS) + 1)
        ratio = "" if seen.ratio is None else f"{seen.ratio:.1%}"
        rest = (f"{seen.correlation:.2f}", f"{seen.switches:.2f}", f"{seen.faults:.0f}", f"{seen.steal:.2%}")
        table.add_row(
            Text(case),
            f"{seen.rounds:.1%}",
            f"{seen.blocks:.1%}",
            ratio,
            *finds,
            f"{seen.block_s:.1f} s" if seen.block_s else "",
            *rest,
        )
    for line in report.setting(found):
        console.print(line, highlight=False)
    console.print(table)
    console.print(
        f"{LEGEND} A slow-down is found in 90 %, at a tolerance of {tolerance:.0%}.", highlight=False
    )
    if raced:
        console.print(in_budget(raced, last, budget), highlight=False)
    for text in [
        *skipped,
        *(
            variance.advice(list(every.values()), priorities)
            if every
            else ["no case has three blocks: nothing to say"]
        ),
    ]:
        console.print(f"  {text}", highlight=False, markup=False)


def in_budget(raced: Sequence[Spread], last: int, budget: str) -> str:
    """How far hotlap ab comes with these cases."""
    import math

    from ..gate.variance import detectable
    from ..stats.compare import LOOKS

    block_s, cases = 2 * sum(one.block_s for one in raced), len(raced)
    if not all(one.block_s for one in raced):
        return (
            f"What hotlap ab finds in {budget} is not known: the file is older than hotlap's count of what a"
            " block takes."
        )
    least = next((look for look in LOOKS if detectable(0.0, look, 0.0, cases) is not None), None)
    if least is None:
        return (
            f"{cases} cases at once share the chance of a false alarm in parts too small for {LOOKS[-1]}"
            " blocks: hotlap ab calls none a regression. Choose fewer."
        )
    if last < least:
        needed = f"{least} blocks, about {math.ceil(least * block_s / 60)} min"
        return (
            f"In {budget} hotlap ab does {last} blocks of all {cases} cases. To call one of so many a"
            f" regression takes {needed}: choose fewer, or a larger --budget."
        )
    return (
        f"In {budget} hotlap ab does {last} blocks of all {cases} cases, which share the chance of a false"
        " alarm."
    )
