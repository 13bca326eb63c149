"""`hotlap run`: train what has no checkpoint, race every backend against eager, check the answers,
report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..machine import survey
from ..terms import files

DEFAULT_BUDGET = "90s"
NOTHING_MEASURED = 4


def run(
    workload: Annotated[
        list[str] | None,
        typer.Argument(
            help="Model names (resnet, vit:base) or package.module:function. Default: every trained model."
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
    batch: Annotated[str, typer.Option(help="Comma-separated batch sizes.")] = "1",
    target: Annotated[
        str,
        typer.Option(
            "--target",
            "--device",
            help=(
                "Comma-separated: cpu, cuda:N, or an architecture such as sm_89, for which cases are proven"
                " without it."
            ),
        ),
    ] = "cpu",
    budget: Annotated[
        str, typer.Option(help="Measuring time of one race and precision, such as 90s or 5m.")
    ] = DEFAULT_BUDGET,
    out: Annotated[Path | None, typer.Option(help="Folder for results.json. Default: runs/race/ID.")] = None,
    resume: Annotated[
        str, typer.Option(help="Go on with a run: its ID, or nothing for the latest.", metavar="[ID]")
    ] = "",
    checkpoint: Annotated[str, typer.Option(help="A Lightning checkpoint for package.module:Class.")] = "",
    threads: Annotated[int, typer.Option(help="Threads of every entrant. Default: all cores.", min=0)] = 0,
    timeout: Annotated[str, typer.Option(help="Longest wait for one answer of a worker.")] = "10m",
) -> int:
    """Race a model's backends against eager: checked, measured, reported."""
    import os

    from ..lookup import workloads
    from ..lookup.cases import default_backends, expand
    from ..measure import rundir
    from ..reports import report
    from ..terms import units
    from ..terms.case import Plan
    from ..terms.reasons import Misuse
    from .progress import Watched, carried_out

    plan = Plan(
        budget_s=units.seconds(budget),
        timeout_s=units.seconds(timeout),
        threads=threads or len(os.sched_getaffinity(0)),
    )
    names = workload or by_default()
    if checkpoint and len(names) != 1:
        raise Misuse("--checkpoint needs exactly one workload, package.module:Class")
    here = survey.collect(plan.threads, "keep")
    console = report.console()
    if resume:
        folder = rundir.latest() if resume == "latest" else out or files.runs_folder() / "race" / resume
        if not (folder / "results.json").exists():
            raise Misuse(
                f"no results.json in {folder}; hotlap run --resume takes an ID under"
                f" {files.runs_folder() / 'race'}"
            )
        opened = rundir.RunFolder(folder, "", here)
        cases = opened.unfinished()
        console.print(f"{len(cases)} cases to go on with in {folder}")
    else:
        for name in names:
            workloads.check(workloads.Reference(name, checkpoint))
        sizes = [positive(text) for text in split(batch)]
        cases = [
            case
            for one in split(target)
            for case in expand(names, split(backends) or default_backends(one), split(precisions), sizes, one)
        ]
        references = {names[0]: checkpoint} if checkpoint else {}
        command = " ".join(["hotlap run", *names])
        opened = rundir.RunFolder(out, command, here, cases, references)
    console.print(f"{here.hardware}; results in {opened.file}", highlight=False, soft_wrap=True)
    results = carried_out(cases, opened, plan, here.key, Watched(console))
    if len({one.case.group for one in results}) > 1:
        console.print(report.table(results, console.width))
    console.print(f"[dim]{report.LEGEND}[/dim]\nresults: {opened.file}", highlight=False)
    groups = {one.case.group for one in results}
    measured = {one.case.group for one in results if "latency" in one.metrics or one.status == "verified"}
    return 0 if groups == measured else NOTHING_MEASURED


def by_default() -> list[str]:
    """Every model file; those that its package names in FIRST come first, so that the first table
    is there soon.
    """
    from importlib import import_module

    from ..lookup import plugins

    modules = plugins.modules("hotlap.workloads")
    first = {
        name
        for package in {module.rpartition(".")[0] for module in modules.values()}
        for name in getattr(import_module(package), "FIRST", ())
    }
    return sorted(modules, key=lambda name: name not in first)


def split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def positive(text: str) -> int:
    from ..terms.reasons import Misuse

    if not text.isdecimal() or int(text) < 1:
        raise Misuse(f"--batch {text!r}: expected whole numbers of at least 1, such as 1,8")
    return int(text)
