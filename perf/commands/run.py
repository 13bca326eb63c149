"""`hotlap run`: train what has no checkpoint, race every backend against eager, check the answers,
report.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from ..terms import units
from ..terms.case import Plan, Priority
from ..terms.reasons import Misuse
from .lists import AUTO, arguments_of, split, target_of

# Of one race and precision: several blocks of most models of the size of ours.
DEFAULT_BUDGET = "90s"
DEFAULT_TIMEOUT = "10m"
# Exit status where a race gave no result at all.
NOTHING_MEASURED = 4


def run(
    workload: Annotated[
        list[str] | None,
        typer.Argument(
            help=(
                "Model names (resnet, vit:base), package.module:function, or files: model.onnx, program.pt2."
                " Default: every trained model."
            )
        ),
    ] = None,
    backends: Annotated[
        str,
        typer.Option(
            help=(
                "Comma-separated, with options: eager,compile\\[mode:max-autotune],onnxruntime. Default: all."
            )
        ),
    ] = "",
    precisions: Annotated[str, typer.Option(help="Comma-separated: fp32,bf16,fp16,tf32,int8.")] = "fp32",
    batch: Annotated[
        str,
        typer.Option(help="Comma-separated batch sizes. Default: 1, or the only one that the model takes."),
    ] = "",
    target: Annotated[
        str,
        typer.Option(
            "--target",
            "--device",
            help=(
                "Comma-separated: auto (the first GPU, or else the CPU), cpu, cuda:N, or an architecture"
                " such as sm_89, for which cases are proven without it."
            ),
        ),
    ] = AUTO,
    budget: Annotated[
        str, typer.Option(help="Measuring time of one race and precision, such as 90s or 5m.")
    ] = DEFAULT_BUDGET,
    out: Annotated[Path | None, typer.Option(help="Folder for results.json. Default: runs/race/ID.")] = None,
    resume: Annotated[
        str, typer.Option(help="Go on with a run: its ID, or nothing for the latest.", metavar="[ID]")
    ] = "",
    checkpoint: Annotated[str, typer.Option(help="A checkpoint for package.module:Class or :function.")] = "",
    arg: Annotated[
        list[str] | None,
        typer.Option(
            help=(
                "An argument of package.module:Class or :function: hidden=48; of an ONNX file the size of a"
                " free axis, or inputs=FILE.npz. May be repeated."
            )
        ),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of every entrant. Default: all cores.", min=0)] = 0,
    box: Annotated[
        str,
        typer.Option(
            help="Measure in a box of so many CPUs and so much memory: cpus=2,memory=1GiB, or one of both."
        ),
    ] = "",
    priority: Annotated[
        Priority,
        typer.Option(
            help=(
                "raised: the scheduler is asked to prefer whose turn it is. normal: a shared machine is left"
                " alone."
            )
        ),
    ] = "raised",
    timeout: Annotated[str, typer.Option(help="Longest wait for one answer of a worker.")] = DEFAULT_TIMEOUT,
    locate: Annotated[
        bool,
        typer.Option(
            "--locate",
            help="Where outputs of an ONNX file or OpenVINO IR are refused, look for the first wrong node.",
        ),
    ] = False,
) -> int:
    """Race a model's backends against eager: checked, measured, reported."""
    from ..lookup.workloads import named
    from ..machine import box as boxes
    from ..machine import survey
    from ..measure.rundir import RunFolder
    from ..reports import report
    from ..reports.console import console
    from . import racing
    from .progress import Watched, carried_out

    plan = Plan(
        budget_s=units.seconds(budget),
        timeout_s=units.seconds(timeout),
        threads=threads or boxes.threads(box),
        priority=priority,
        box=boxes.canonical(box),
    )
    names = workload or racing.by_default()
    if checkpoint and len(names) != 1:
        raise Misuse("--checkpoint needs exactly one workload, package.module:Class")
    arguments = arguments_of(arg or [])
    if arguments and len(names) != 1:
        raise Misuse("--arg needs exactly one workload, package.module:Class, :function or a file")
    asked = [named(name, checkpoint, arguments) for name in names]
    here = survey.collect(plan.threads, "keep", boxes.words(plan.box))
    output = console()
    if resume:
        opened = racing.resumed(resume, out, here)
        cases = opened.unfinished()
        lines = [f"{len(cases)} cases to go on with in {opened.folder}"]
    else:
        notes: list[str] = []
        targets = [target_of(part, notes) for part in split(target)]
        cases = racing.asked(asked, backends, precisions, batch, targets, plan)
        references = {each.text: each.checkpoint for each in asked if each.checkpoint}
        made_with = {each.text: dict(each.arguments) for each in asked if each.arguments}
        opened = RunFolder(out, " ".join(["hotlap run", *names]), here, cases, references, made_with)
        lines = notes
    settings = (
        ("--out", out, None),
        ("--budget", budget, DEFAULT_BUDGET),
        ("--threads", threads, 0),
        ("--priority", priority, "raised"),
        ("--box", plan.box, ""),
        ("--timeout", timeout, DEFAULT_TIMEOUT),
    )
    with racing.resumable(opened, to_go_on(opened.folder, settings)):
        for line in [*lines, f"{here.hardware}; results in {opened.file}", racing.duration(cases, plan)]:
            output.print(line, soft_wrap=True)
        results = carried_out(cases, opened, plan, here.key, Watched(output), first_look=True, locate=locate)
    if len({result.case.group for result in results}) > 1:
        output.print(report.table(results, output.width))
    output.print(report.LEGEND, style="dim")
    racing.conclude(opened.results.results if resume else results, opened, output)
    return 0 if racing.complete(results) else NOTHING_MEASURED


def to_go_on(folder: Path, settings: Iterable[tuple[str, object, object]]) -> str:
    """Returns the command that goes on with the run in this folder.

    settings: options that a results file does not hold, each with its value and its default.
    """
    words = ["hotlap", "run", "--resume", folder.resolve().name]
    for option, value, default in settings:
        words += [option, str(value)] if value != default else []
    return shlex.join(words)
