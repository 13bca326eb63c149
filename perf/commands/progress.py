"""What a person sees while a race runs: a live table on a terminal, plain lines elsewhere.

It draws only between blocks, never beside a turn.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..lookup.cases import PACE
from ..measure.journal import Progress
from ..measure.measure import measure
from ..measure.rundir import RunFolder
from ..race.entrant import Entrant
from ..reports.report import reasons, table
from ..stats import estimates
from ..terms import escape
from ..terms.case import Case, Plan
from ..terms.result import Result
from ..terms.units import scaled


class Watched(Progress):
    """Prints to a console."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.start = time.monotonic()
        # The table of the race that runs; None between races, and where the console is no terminal.
        self.live: Live | None = None
        # The event that was shown last.
        self.last = ""

    def line(self, text: str) -> None:
        self.console.print(Text.assemble((self.clock(), "dim"), f"  {escape.plain(text)}"))

    def race(self, group: str, entrants: Sequence[Entrant], event: str) -> None:
        if self.console.is_terminal:
            if self.live is None:
                self.live = Live(console=self.console, auto_refresh=False, transient=True)
                self.live.start()
            self.live.update(self.standing(group, entrants, event or self.last), refresh=True)
        elif event and event != self.last:
            self.line(f"{group}: {event}{self.summary(entrants)}")
        self.last = event or self.last

    def looked(self, group: str, results: Sequence[Result]) -> None:
        """Prints the rows alone: three blocks are too few for a verdict."""
        self.close()
        self.console.print()
        self.console.print("A first look, of a few seconds; the others are built now, then all race.")
        self.console.print(table(results, self.console.width))
        self.console.print()

    def finished(self, group: str, results: Sequence[Result]) -> None:
        self.close()
        self.console.print()
        self.console.print(table(results, self.console.width))
        for text in reasons(results):
            self.console.print(f"  {text}", style="dim")
        self.console.print()

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def clock(self) -> str:
        return f"{time.monotonic() - self.start:6.1f} s"

    def summary(self, entrants: Sequence[Entrant]) -> str:
        """Returns each entrant's ratio to the first so far, in brackets, or nothing."""
        parts = [
            f"{entrant.case.label} {text}"
            for entrant in users(entrants)
            if (text := so_far(entrant, entrants[0]))
        ]
        return f" ({', '.join(parts)})" if parts else ""

    def standing(self, group: str, entrants: Sequence[Entrant], event: str) -> Table:
        """Returns the table of a race as it stands."""
        drawn = Table(
            box=None,
            pad_edge=False,
            title=f"{group}  {self.clock().strip()}  {event}",
            title_justify="left",
            title_style="dim",
        )
        for head in ("entrant", "blocks", "latency", "to the first"):
            drawn.add_column(head)
        for entrant in users(entrants):
            medians = [estimates.median(block) for block in entrant.latencies() if block]
            state = entrant.refusal.code if entrant.refusal else str(len(entrant.seen.timed))
            drawn.add_row(
                entrant.case.label,
                state,
                scaled(estimates.median(medians), "s") if medians else "",
                so_far(entrant, entrants[0]),
            )
        return drawn


class Quiet(Watched):
    """Says what happens, and leaves the results to who asked."""

    def finished(self, group: str, results: Sequence[Result]) -> None:
        self.close()


def users(entrants: Sequence[Entrant]) -> list[Entrant]:
    """Returns the entrants that a person asked for: all but the pace."""
    return [entrant for entrant in entrants if entrant.case.backend != PACE]


def so_far(entrant: Entrant, first: Entrant) -> str:
    """Returns how long an entrant takes beside the first; empty where that is not known."""
    if entrant is first or not entrant.seen.timed or not first.seen.timed or entrant.refusal:
        return ""
    return f"{estimates.ratio(first.latencies(), entrant.latencies()).centre:.2f}x the time"


def carried_out(
    cases: Sequence[Case],
    opened: RunFolder,
    plan: Plan,
    environment: str,
    progress: Watched,
    first_look: bool = False,
    locate: bool = False,
) -> list[Result]:
    """Measures the cases with someone watching; whatever ends it, the terminal and the folder are
    left in order. environment: the key of this machine's, as the results name it. first_look: rows
    of the first race before all of it is built.
    """
    try:
        return measure(cases, opened, plan, environment, progress, first_look=first_look, locate=locate)
    finally:
        progress.close()
        opened.close()
