"""`hotlap bench-artefact`: what a build left behind, checked and timed by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terms import files, printer, units
from ..terms.case import Plan

# Exit status where the artefact could not be timed.
NOTHING_MEASURED = 4


def bench_artefact(
    folder: Annotated[
        Path,
        typer.Argument(
            help=(
                "An artefact: a folder with a manifest.json, such as"
                " runs/race/ID/work/GROUP/artefacts/onnxruntime-fp32."
            ),
            metavar="DIR",
        ),
    ],
    json: Annotated[
        Path | None, typer.Option(help="Write the results, as hotlap run does; - is stdout.")
    ] = None,
    budget: Annotated[str, typer.Option(help="Measuring time, such as 20s or 1m.")] = "20s",
    threads: Annotated[int, typer.Option(help="Threads. Default: all cores.", min=0)] = 0,
    timeout: Annotated[str, typer.Option(help="Longest wait for one answer of a worker.")] = "5m",
) -> int | None:
    """Check an artefact's files and outputs, then time it, without the model's source.

    Exit 4: damaged, or nothing measured.
    """
    from ..artefacts import opening
    from ..machine import cores, survey
    from ..measure import artefact, rundir
    from ..reports import report
    from ..reports.console import console

    manifest = opening.checked(folder)
    plan = Plan(
        budget_s=units.seconds(budget),
        looks=(artefact.BLOCKS,),
        timeout_s=units.seconds(timeout),
        threads=threads or cores.count(),
    )
    here = survey.collect(plan.threads, "keep")
    run = rundir.RunFolder(files.runs_folder() / "artefact" / rundir.new_id(), "hotlap bench-artefact", here)
    for line in opening.doubts(manifest):
        printer.note(f"warning: {line}")
    try:
        results = artefact.measure(folder, manifest, run, plan, here.key, printer.note)
    finally:
        run.close()
    if str(json) != "-":
        output = console()
        output.print(report.table(results, output.width))
        for line in artefact.summary(manifest, results):
            output.print(f"  {line}")
        printer.line(f"results: {run.file}")
    if json is not None:
        files.put(json, run.file.read_bytes())
    return None if "latency" in results[0].metrics else NOTHING_MEASURED
