"""`hotlap ab`: two revisions against each other in this job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..machine import survey
from ..terms import files


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
    case: Annotated[
        list[str] | None,
        typer.Option(help="Only cases whose id matches this glob; may be given several times."),
    ] = None,
    backends: Annotated[str, typer.Option(help="Comma-separated, as for hotlap run.")] = "eager",
    precisions: Annotated[str, typer.Option(help="Comma-separated.")] = "fp32",
    batch: Annotated[str, typer.Option(help="Comma-separated batch sizes.")] = "1",
    device: Annotated[str, typer.Option(help="cpu or cuda:N.")] = "cpu",
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
    import os

    from ..gate import policy as policies
    from ..gate.ab import Comparison, write_results
    from ..gate.revisions import Revisions, kind
    from ..lookup.cases import expand, matching
    from ..measure import rundir
    from ..reports.output import show, write
    from ..terms import units
    from ..terms.case import Plan
    from ..terms.reasons import Misuse
    from .lists import batch_sizes, split

    rules = policies.read(policy or (Path("gate.toml") if Path("gate.toml").is_file() else None))
    plan = Plan(
        budget_s=units.seconds(budget or rules.budget),
        tail_s=0,
        fresh_blocks=FRESH_BLOCKS,
        timeout_s=units.seconds(timeout),
        threads=threads or len(os.sched_getaffinity(0)),
    )
    if kind(base) != kind(head):
        raise Misuse(
            f"{base} and {head} are of different kinds, {kind(base)} and {kind(head)}; give two of the same"
        )
    names = [head] if kind(head) == "workload" else workload or []
    if not names:
        raise Misuse(
            "what shall both sides run? name a workload: hotlap ab BASE HEAD package.module:function"
        )
    if kind(head) == "workload" and workload:
        raise Misuse("the two sides are workloads themselves; leave the third argument out")
    wanted = expand(
        names,
        split(backends),
        split(precisions),
        batch_sizes(batch),
        device,
        pace=False,
    )
    cases = [one for one in matching(wanted, case or ["*"]) if not rules.of(one.id).ignored]
    if not cases:
        raise Misuse("the policy ignores every case that was asked for")
    folder = (out or files.runs_folder() / "ab" / rundir.new_id()).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misuse(f"cannot write to {folder}: {error.strerror}; choose another --out") from None
    revisions = Revisions(folder)
    try:
        sides = revisions.open("base", base), revisions.open("head", head)
        comparison = Comparison(*sides, rules, plan, folder, survey.collect(plan.threads, "keep"), tell)
        try:
            found = comparison.verdict(cases, revisions.repository, files.runs_folder() / "ab" / "aa.jsonl")
        finally:
            write_results(folder, comparison)  # also of a comparison that was interrupted
    finally:
        revisions.close()
    write(
        found,
        {"json": json or folder / "verdict.json", "junit": junit, "sarif": sarif, "markdown": markdown},
        github,
    )
    if not any(str(path) == "-" for path in (json, junit, sarif, markdown)):
        show(found, sys.stdout)
        print(f"results: {folder}")
    return found.exit_status


# Memory and cold start come from workers that import everything themselves.
FRESH_BLOCKS = 3


def tell(text: str) -> None:
    """Progress goes to stderr: stdout may be a file of the verdict."""
    print(text, file=sys.stderr, flush=True)
