"""What a person sees while a race runs: a live table on a terminal, plain lines elsewhere.

It draws only between blocks, never beside a turn.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..measure.journal import Progress
from ..measure.measure import measure
from ..race.entrant import Entrant
from ..reports.report import reasons, table
from ..stats import estimates
from ..terms.case import Plan
from ..terms.result import Result
from ..terms.units import scaled

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    from ..measure.rundir import RunFolder
    from ..terms.case import Case


class Watched(Progress):
    """Prints to a console.

    `live` is the table of the race that runs, None where the console is no terminal.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.start = time.monotonic()
        self.live: Live | None = None
        self.last = ""

    def line(self, text: str) -> None:
        self.console.print(f"[dim]{self.clock()}[/dim]  {escaped(text)}", highlight=False)

    def race(self, group: str, entrants: Sequence[Entrant], event: str) -> None:
        if self.console.is_terminal:
            from rich.live import Live

            if self.live is None:
                self.live = Live(console=self.console, auto_refresh=False, transient=True)
                self.live.start()
            self.live.update(self.standing(group, entrants, event or self.last), refresh=True)
        elif event and event != self.last:
            self.line(f"{group}: {event}{self.summary(entrants)}")
        self.last = event or self.last

    def finished(self, group: str, results: Sequence[Result]) -> None:
        self.close()
        self.console.print()
        self.console.print(table(results, self.console.width))
        for text in reasons(results):
            self.console.print(f"  [dim]{escaped(text)}[/dim]", highlight=False)
        self.console.print()

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def clock(self) -> str:
        return f"{time.monotonic() - self.start:6.1f} s"

    def summary(self, entrants: Sequence[Entrant]) -> str:
        """Each entrant's ratio to the first so far."""
        parts = [
            f"{entrant.case.label} {text}" for entrant in entrants if (text := so_far(entrant, entrants[0]))
        ]
        return f" ({', '.join(parts)})" if parts else ""

    def standing(self, group: str, entrants: Sequence[Entrant], event: str) -> Table:
        from rich.table import Table

        made = Table(
            box=None,
            pad_edge=False,
            title=f"{group}  {self.clock().strip()}  {escaped(event)}",
            title_justify="left",
            title_style="dim",
        )
        for head in ("entrant", "blocks", "latency", "to the first"):
            made.add_column(head)
        for entrant in entrants:
            medians = [estimates.median(block) for block in entrant.latencies() if block]
            state = entrant.refusal.code if entrant.refusal else str(len(entrant.seen.timed))
            made.add_row(
                escaped(entrant.case.label),
                state,
                scaled(estimates.median(medians), "s") if medians else "",
                so_far(entrant, entrants[0]),
            )
        return made


class Quiet(Watched):
    """Says what happens, and leaves the results to who asked."""

    def finished(self, group: str, results: Sequence[Result]) -> None:
        self.close()


def so_far(entrant: Entrant, first: Entrant) -> str:
    if entrant is first or not entrant.seen.timed or not first.seen.timed or entrant.refusal:
        return ""
    return f"{estimates.ratio(first.latencies(), entrant.latencies()).centre:.2f}x the time"


def escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def carried_out(
    cases: Sequence[Case], opened: RunFolder, plan: Plan, environment: str, progress: Watched
) -> list[Result]:
    """measure.measure with someone watching; whatever ends it, the terminal and the folder are left
    in order.
    """
    try:
        return measure(cases, opened, plan, environment, progress)
    finally:
        progress.close()
        opened.close()
