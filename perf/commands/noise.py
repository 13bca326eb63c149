"""`hotlap noise`: what disturbs this machine now, what a run says of its noise, and what the gate
can detect with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terms import units
from ..terms.reasons import Misuse


def noise(
    results: Annotated[
        Path | None, typer.Argument(help="A results.json. Default: the latest run, if there is one.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Of the gate, as a share.", min=0.0, max=1.0)] = 0.03,
    budget: Annotated[str, typer.Option(help="Of hotlap ab for all these cases, such as 10m.")] = "10m",
    listen: Annotated[
        float, typer.Option(help="Seconds to listen to the machine's cores; 0: only the file.", min=0.0)
    ] = 3.0,
) -> None:
    """Show where the spread of a run and of this machine comes from, and the slow-down that hotlap
    ab would find with 90 % power.
    """
    from ..measure.rundir import latest
    from ..reports.console import console
    from . import noise_tables

    budget_s, output = units.seconds(budget), console()
    if results is None:
        try:
            results = latest() / "results.json"
        except Misuse:
            if not listen:
                raise
    if listen:
        noise_tables.show_machine(output, listen)
    if results is None:
        output.print("no run yet, so nothing on cases: hotlap run")
        return
    if listen:
        output.print()
    noise_tables.show_run(output, results, tolerance, budget, budget_s)
