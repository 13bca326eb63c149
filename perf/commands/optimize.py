"""`hotlap optimize`: the fastest right way to run a model here, confirmed, as a folder."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ..terms import escape, files, printer, units
from ..terms.case import Plan, Priority
from ..terms.reasons import Misuse, Refusal
from .lists import AUTO, arguments_of, batches_of, split, target_of

if TYPE_CHECKING:
    from ..choose.choose import Choice

# Building takes most of it: one compilation of Inductor 20 to 50 s.
DEFAULT_BUDGET = "5m"
# What is tried where nobody says: the coarse ones where an evaluation says what they cost.
PRECISIONS = ("fp32", "bf16", "int8")
ON_GPU = ("fp32", "bf16", "fp16", "int8")
# Exit status where nothing was chosen, or a bound could not be shown.
NOT_SHOWN = 3
# Exit status where the model could not be measured.
NOTHING_MEASURED = 4


def clock(later_s: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(time.time() + later_s))


def ways(choice: Choice) -> Table:
    """Returns the table of what was thought of, and why each was not chosen."""
    from ..choose import sentences

    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in ("way", "latency", "beside it", "what became of it"):
        drawn.add_column(head, overflow="fold")
    for row in sentences.rows(choice):
        drawn.add_row(*(escape.plain(cell) for cell in row))
    return drawn


def optimize(
    workload: Annotated[
        str,
        typer.Argument(help="A model name, package.module:function, or a file: model.onnx, program.pt2."),
    ],
    goal: Annotated[
        str, typer.Option(help="min or max, and latency, throughput, memory, size, ...")
    ] = "min latency",
    subject_to: Annotated[
        str,
        typer.Option(help="Bounds: drop<=0.5%, memory<=500MB, p99<=20ms, deviation<=0.5, cold start<=2s."),
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the artefact. Default: runs/choose/ID/artefact."),
    ] = None,
    budget: Annotated[str, typer.Option(help="Time for all of it.")] = DEFAULT_BUDGET,
    target: Annotated[
        str,
        typer.Option("--target", "--device", help="auto (the first GPU, or else the CPU), cpu or cuda:N."),
    ] = AUTO,
    batch: Annotated[int, typer.Option(help="Default: 1, or the only one that the model takes.", min=0)] = 0,
    precisions: Annotated[
        str,
        typer.Option(
            help="Comma-separated. Default: fp32, and with an evaluation bf16 and int8 within its budget."
        ),
    ] = "",
    threads: Annotated[int, typer.Option(help="Most threads. Default: all cores.", min=0)] = 0,
    checkpoint: Annotated[str, typer.Option(help="A checkpoint for package.module:Class or :function.")] = "",
    arg: Annotated[
        list[str] | None, typer.Option(help="An argument, as for hotlap run: hidden=48. May be repeated.")
    ] = None,
    priority: Annotated[
        Priority, typer.Option(help="raised, or normal: a shared machine is left alone.")
    ] = "raised",
) -> int:
    """Choose the fastest right way to run a model, confirm it on fresh measurements, and leave the
    artefact with its launcher.
    """
    from ..choose import candidates, choose, sentences, ship, wishes
    from ..lookup.workloads import check, named
    from ..machine import survey
    from ..measure.rundir import RunFolder, new_id
    from ..reports.console import console
    from .progress import Watched

    wish = wishes.parse(goal, subject_to)
    reference = named(workload, checkpoint, arguments_of(arg or []))
    check(reference)
    plan = Plan(
        budget_s=units.seconds(budget),
        threads=threads or len(os.sched_getaffinity(0)),
        priority=priority,
    )
    notes: list[str] = []
    device = target_of(target, notes)
    if device.startswith(("sm_", "gfx")):
        raise Misuse(f"--target {device}: what is chosen must be timed here; use auto, cpu or cuda:N")
    output = console()
    here = survey.collect(plan.threads, "keep")
    output.print(
        f"{sentences.question(wish)}; {here.hardware}; done by about {clock(plan.budget_s)}",
        soft_wrap=True,
    )
    for line in notes:
        output.print(line)
    (size,) = [batch] if batch else batches_of(reference, "", plan)
    wanted = tuple(split(precisions)) or (PRECISIONS if device == "cpu" else ON_GPU)
    cases = candidates.ways(reference.text, size, device, wanted, plan)
    folder = files.runs_folder() / "choose" / new_id()
    command = f"hotlap optimize {workload}"
    references = {reference.text: reference.checkpoint} if reference.checkpoint else {}
    arguments = {reference.text: dict(reference.arguments)} if reference.arguments else {}
    search, confirm = (
        RunFolder(folder / part, command, here, (), references, arguments) for part in ("search", "confirm")
    )
    progress = Watched(output)
    try:
        choice = choose.choose(cases, wish, search, confirm, plan, here.key, progress, bool(precisions))
    except Refusal as refusal:
        progress.close()
        printer.note(f"hotlap: {reference.text}: {refusal.reason}")
        return NOTHING_MEASURED
    finally:
        progress.close()
        search.close()
        confirm.close()
    output.print(ways(choice))
    for line in sentences.answer(choice):
        output.print(line, style="bold", soft_wrap=True)
    printer.line(f"results: {folder / 'search'} and {folder / 'confirm'}, read by hotlap report")
    if choice.chosen is None:
        return NOT_SHOWN
    left = (out or folder / "artefact").absolute()
    ship.ship(folder / "search" / choice.chosen.artefact, left, choice.chosen)
    printer.line(f"artefact: {left}")
    printer.line(f"run it: {left / 'run.sh'}    in Python: hotlap.open_artefact({str(left)!r})")
    return 0 if sentences.holds(choice) else NOT_SHOWN
