"""`hotlap ab`: two revisions against each other in this job."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ..terms import files, printer, units
from ..terms.case import Case, Plan
from ..terms.reasons import Misuse
from .lists import AUTO

# Memory and cold start come from workers that import everything themselves.
FRESH_BLOCKS = 3


def ab(
    base: Annotated[
        str,
        typer.Argument(
            help=(
                "A git revision, . for the working copy, a virtual environment's folder, or a workload"
                " (package.module:function)."
            )
        ),
    ],
    head: Annotated[str, typer.Argument(help="What is judged against it, of the same kind.")],
    workload: Annotated[
        list[str] | None,
        typer.Argument(
            help=(
                "What both sides run: package.module:function, or a model's name. Not needed where the sides"
                " are workloads."
            )
        ),
    ] = None,
    globs: Annotated[
        list[str] | None,
        typer.Option("--case", help="Only cases whose id matches this glob; may be given several times."),
    ] = None,
    backends: Annotated[str, typer.Option(help="Comma-separated, as for hotlap run.")] = "eager",
    precisions: Annotated[str, typer.Option(help="Comma-separated.")] = "fp32",
    batch: Annotated[
        str,
        typer.Option(help="Comma-separated batch sizes. Default: 1, or the only one that the model takes."),
    ] = "",
    device: Annotated[
        str,
        typer.Option("--target", "--device", help="auto (the first GPU, or else the CPU), cpu or cuda:N."),
    ] = AUTO,
    budget: Annotated[
        str,
        typer.Option(
            help=(
                "Measuring time for all cases to a decision, and as much again to confirm regressions."
                " Default: the policy's, 10m."
            )
        ),
    ] = "",
    policy: Annotated[Path | None, typer.Option(help="Default: gate.toml here, if there is one.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for base.json, head.json and verdict.json. Default: runs/ab/ID."),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of every worker. Default: all cores.", min=0)] = 0,
    timeout: Annotated[str, typer.Option(help="Longest wait for one answer of a worker.")] = "10m",
    json: Annotated[Path | None, typer.Option(help="Write the verdict; - is stdout.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML.")] = None,
    sarif: Annotated[Path | None, typer.Option(help="Write SARIF 2.1.0.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown for a pull request.")] = None,
    github: Annotated[
        bool,
        typer.Option(
            "--github", help="Print GitHub's annotations and append the Markdown to its step summary."
        ),
    ] = False,
) -> int:
    """Race two revisions side by side in this job and judge HEAD. Exit as hotlap gate."""
    from ..gate.ab import compared
    from ..gate.policy import chosen
    from ..gate.revisions import Revisions, common_workloads
    from ..lookup.cases import matching
    from ..measure.rundir import new_id
    from ..reports.output import publish
    from .lists import target_of

    rules = chosen(policy)
    plan = plan_of(budget or rules.budget, timeout, threads)
    names = common_workloads(base, head, workload or [])
    notes: list[str] = []
    target = target_of(device, notes)
    everything = cases_of(names, backends, precisions, batch, target, plan)
    cases = [case for case in matching(everything, globs or ["*"]) if not rules.of(case.id).ignored]
    if not cases:
        raise Misuse("the policy ignores every case that was asked for")
    folder = (out or files.runs_folder() / "ab" / new_id()).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misuse(f"cannot write to {folder}: {error.strerror}; choose another --out") from None
    notes.insert(0, ending(len(cases), plan.budget_s))
    files.refuse_links(folder, "base", "head", "trees", "log", "verdict.json")

    def report(text: str) -> None:
        """Prints an event, before the first which target was taken: a mistake is one line alone."""
        while notes:
            printer.note(notes.pop(0))
        printer.note(text)

    revisions, start = Revisions(folder), time.monotonic()
    try:
        sides = revisions.open("base", base), revisions.open("head", head)
        verdict = compared(sides, cases, rules, plan, folder, revisions.repository, report)
    finally:
        revisions.close()
    options = {
        "--backends": (backends, "eager"),
        "--precisions": (precisions, "fp32"),
        "--batch": (batch, ""),
    }
    again = ["hotlap", "ab", *(each.sha[:12] or text for each, text in zip(sides, (base, head), strict=True))]
    again += [*(workload or []), "--target", target, "--budget", f"{plan.budget_s:g}s"]
    again += [word for name, (value, usual) in options.items() if value != usual for word in (name, value)]
    lines = setting(plan, rules.alpha, time.monotonic() - start), f"again: {shlex.join(again)}"
    verdict = msgspec.structs.replace(verdict, reasons=(*verdict.reasons, *lines))
    paths = {"json": json or folder / "verdict.json", "junit": junit, "sarif": sarif, "markdown": markdown}
    if publish(verdict, paths, github):
        printer.line(f"results: {folder}")
    return verdict.exit_status


def plan_of(budget: str, timeout: str, threads: int) -> Plan:
    """Returns how two sides are raced, from what the command line says. Raises Misuse."""
    from ..machine import cores

    return Plan(
        budget_s=units.seconds(budget),
        tail_s=0,
        fresh_blocks=FRESH_BLOCKS,
        timeout_s=units.seconds(timeout),
        threads=threads or cores.count(),
    )


def cases_of(
    workloads: Sequence[str], backends: str, precisions: str, batch: str, target: str, plan: Plan
) -> list[Case]:
    """Returns the cases that the options name, without a pace: the sides are each other's. Raises
    Misuse.
    """
    from ..lookup.cases import expand
    from ..lookup.workloads import Reference
    from .lists import batches_of, split

    return [
        case
        for name in workloads
        for case in expand(
            [name],
            split(backends),
            split(precisions),
            batches_of(Reference(name), batch, plan),
            target,
            pace=False,
        )
    ]


def setting(plan: Plan, alpha: float, seconds: float) -> str:
    """Returns one line on where a verdict comes from and how often it is wrong."""
    from ..machine import survey
    from .racing import minutes

    hardware = survey.collect(plan.threads, "keep").hardware
    return f"on {hardware}; chance of a false alarm {alpha:.0%}; took {minutes(seconds)}"


def ending(cases: int, budget_s: float) -> str:
    """Returns one line that says when all is done at the latest, and what takes how long."""
    from .racing import BUILDING_S, counted, minutes

    building_s = 2 * BUILDING_S * cases
    end = time.strftime("%H:%M", time.localtime(time.time() + building_s + 2 * budget_s))
    return (
        f"done by about {end} at the latest: {minutes(building_s)} to build and check both sides of"
        f" {counted(cases, 'case')}, {minutes(budget_s)} to decide, as much again where something got worse"
    )
