"""What `hotlap noise` prints: this machine's cores now, the spread of each case of a run, and what
the gate can detect with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..gate import variance
from ..gate.variance import RunNoise, Spread
from ..machine.noise import listen
from ..reports import report
from ..stats.compare import LOOKS
from ..terms import result

# Numbers of blocks for which the table says what is found: the first look of hotlap ab and a later
# one that most budgets reach.
BLOCKS = (6, 16)
LEGEND = (
    "rounds, workers: standard deviation of a latency from sample to sample and from worker to worker. ratio:"
    " of a block to eager or, where nothing to compare with ran beside a case, to its own block before."
    " found: what hotlap ab calls a regression, if its two sides differ as these do. Its sides take turns"
    " within a block, so of a case compared with itself it finds this or less; of one compared with eager,"
    " eager under library defaults says more. switches: involuntary, a sample. faults: a call."
)


def show_machine(console: Console, seconds: float) -> None:
    """Listens to this machine's cores, one after the other, and prints a row for each."""
    heard = listen(seconds)
    table = Table(box=None, pad_edge=False)
    for head in ("core", "a Python loop", "to the fastest", "steal", "clock"):
        table.add_column(head, justify="right")
    fastest = min(core.centre_s for core in heard.cores)
    for core in heard.cores:
        clock = "not told"
        if core.clock_hz is not None:
            clock = " to ".join(f"{value / 1e9:.2f}" for value in sorted(set(core.clock_hz))) + " GHz"
        table.add_row(
            str(core.number),
            f"{core.centre_s * 1e3:.2f} ms",
            f"{core.centre_s / fastest - 1:+.1%}",
            f"{core.steal:.2%}",
            clock,
        )
    console.print("This machine now")
    console.print(table)
    levels = heard.levels
    console.print(
        f"from sample to sample {levels.samples:.1%}, from visit to visit of a core {levels.visits:.1%}, from"
        f" core to core {levels.cores:.1%}; slowest 5 % take {levels.tail:.2f}x the median; lag-1"
        f" {levels.correlation:.2f}; {heard.switches:.1f} involuntary switches a second"
    )
    for cause in heard.causes:
        console.print(f"  {cause}")


def show_run(console: Console, path: Path, tolerance: float, budget: str, budget_s: float) -> None:
    """Prints the spread of each case of a results file and what the gate can detect with it.

    tolerance: of the gate, as a share. budget: of hotlap ab, as it stands on the command line, and
    in s. Raises Misuse.
    """
    results = result.read(path)
    noise = variance.of_run(results.results)
    last = variance.affordable(noise.raced, budget_s)
    for line in report.setting(results):
        console.print(line)
    console.print(spreads(noise, last, tolerance, budget))
    console.print(f"{LEGEND} A slow-down is found in 90 %, at a tolerance of {tolerance:.0%}.")
    if noise.raced:
        console.print(in_budget(noise.raced, last, budget))
    advice = ["no case has three blocks: nothing to say"]
    if noise.spreads:
        advice = variance.advice(list(noise.spreads.values()), noise.priorities)
    for text in [*noise.skipped, *advice]:
        console.print(f"  {text}")


def spreads(noise: RunNoise, last: int, tolerance: float, budget: str) -> Table:
    """Returns a row for each case. last: the blocks that hotlap ab reaches in the budget."""
    table = Table(box=None, pad_edge=False)
    heads = [f"found after {blocks} blocks" for blocks in BLOCKS]
    heads.append(f"found in {budget}" + (f" ({last} blocks)" if last else ""))
    disturbances = ("a block", "lag-1", "switches", "faults", "steal")
    for head in ("case", "rounds", "workers", "ratio", *heads, *disturbances):
        table.add_column(head, justify="left" if head == "case" else "right", overflow="fold")
    for case, spread in noise.spreads.items():
        table.add_row(
            case,
            f"{spread.rounds:.1%}",
            f"{spread.blocks:.1%}",
            "" if spread.ratio is None else f"{spread.ratio:.1%} to {'itself' if spread.alone else 'eager'}",
            *detectable(spread, last, tolerance, len(noise.raced)),
            f"{spread.block_s:.1f} s" if spread.block_s else "",
            f"{spread.correlation:.2f}",
            f"{spread.switches:.2f}",
            f"{spread.faults:.0f}",
            f"{spread.steal:.2%}",
        )
    return table


def detectable(spread: Spread, last: int, tolerance: float, cases: int) -> list[str]:
    """Returns what hotlap ab finds: of this case alone after each of BLOCKS, of all cases at once
    after the last look; empty cells for a case without a ratio.
    """
    if spread.ratio is None:
        return [""] * (len(BLOCKS) + 1)
    limits = [variance.detectable(spread.ratio, blocks, tolerance) for blocks in BLOCKS]
    limits.append(variance.detectable(spread.ratio, last, tolerance, cases))
    return ["-" if limit is None else f"{limit:.1%}" for limit in limits]


def in_budget(raced: Sequence[Spread], last: int, budget: str) -> str:
    """Returns a line that says how far hotlap ab comes with these cases."""
    block_s, cases = 2 * sum(spread.block_s for spread in raced), len(raced)
    if not all(spread.block_s for spread in raced):
        return (
            f"What hotlap ab finds in {budget} is not known: the file is older than hotlap's count of what a"
            " block takes."
        )
    least = next((look for look in LOOKS if variance.detectable(0.0, look, 0.0, cases) is not None), None)
    if least is None:
        return (
            f"{cases} cases at once share the chance of a false alarm in parts too small for {LOOKS[-1]}"
            " blocks: hotlap ab calls none a regression. Choose fewer."
        )
    reached = (
        f"In {budget} hotlap ab does {last} blocks of {f'all {cases} cases' if cases > 1 else 'this case'}"
    )
    if last < least:
        needed = f"{least} blocks, about {math.ceil(least * block_s / 60)} min"
        if cases > 1:
            return (
                f"{reached}. To call one of so many a regression takes {needed}: choose fewer, or a larger"
                " --budget."
            )
        return f"{reached}. To call it a regression takes {needed}: choose a larger --budget."
    return f"{reached}, which share the chance of a false alarm." if cases > 1 else f"{reached}."
