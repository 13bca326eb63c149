"""`hotlap optimize`: the fastest right way to run a model here, confirmed, as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..terms import printer, units
from ..terms.case import Plan, Priority
from ..terms.reasons import Misuse, Refusal
from .lists import AUTO, arguments_of, split

# Building takes most of it: one compilation of Inductor 20 to 50 s.
DEFAULT_BUDGET = "5m"
DEFAULT_GOAL = "min latency"
Against = Literal["best", "all"]
# Exit status where nothing was chosen, or a bound could not be shown.
NOT_SHOWN = 3
# Exit status where the model could not be measured.
NOTHING_MEASURED = 4


def optimize(
    workload: Annotated[
        str,
        typer.Argument(help="A model name, package.module:function, or a file: model.onnx, program.pt2."),
    ] = "",
    goal: Annotated[
        str, typer.Option(help="min or max, and latency, throughput, memory, size, ...")
    ] = DEFAULT_GOAL,
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
    pipeline: Annotated[
        str,
        typer.Option(help="package.module:function that takes the model and does all around it: timed too."),
    ] = "",
    against: Annotated[
        Against, typer.Option(help="Libraries by default that it is confirmed beside: the best, or all.")
    ] = "best",
    box: Annotated[
        str,
        typer.Option(
            help="Measure in a box of so many CPUs and so much memory: cpus=2,memory=1GiB, or one of both."
        ),
    ] = "",
    threads: Annotated[int, typer.Option(help="Most threads. Default: all cores.", min=0)] = 0,
    checkpoint: Annotated[str, typer.Option(help="A checkpoint for package.module:Class or :function.")] = "",
    arg: Annotated[
        list[str] | None, typer.Option(help="An argument, as for hotlap run: hidden=48. May be repeated.")
    ] = None,
    resume: Annotated[
        str,
        typer.Option(
            help="Ask an earlier question again, by its ID or the latest; what it built is taken.",
            metavar="[ID]",
        ),
    ] = "",
    priority: Annotated[
        Priority, typer.Option(help="raised, or normal: a shared machine is left alone.")
    ] = "raised",
) -> int:
    """Choose the fastest right way to run a model, confirm it on fresh measurements, and leave the
    artefact with its launcher.
    """
    from ..choose import sentences, wishes
    from ..lookup.workloads import named
    from ..machine import box as boxes
    from ..reports.console import console
    from .optimizing import Question, answered, asked_before

    if resume:
        others = (workload, subject_to, out, batch, precisions, pipeline, threads, box, checkpoint, arg)
        if any(others) or (goal, target, against, priority) != (DEFAULT_GOAL, AUTO, "best", "raised"):
            raise Misuse("--resume asks an earlier question again, and takes a --budget alone")
        question = asked_before(resume, None if budget == DEFAULT_BUDGET else units.seconds(budget))
    elif not workload:
        raise Misuse("name a workload: a model, package.module:function, or a file (hotlap optimize --help)")
    else:
        wishes.parse(goal, subject_to)
        question = Question(
            named(workload, checkpoint, arguments_of(arg or [])),
            goal,
            subject_to,
            Plan(
                budget_s=units.seconds(budget),
                threads=threads or boxes.threads(box),
                priority=priority,
                box=boxes.canonical(box),
            ),
            target,
            batch,
            tuple(split(precisions)),
            "" if out is None else str(out),
            f"hotlap optimize {workload}",
            pipeline,
            against == "all",
        )
    try:
        answer = answered(question, console())
    except Refusal as refusal:
        printer.note(f"hotlap: {question.reference.text}: {refusal.reason}")
        return NOTHING_MEASURED
    return 0 if sentences.holds(answer.choice) else NOT_SHOWN
