"""`hotlap upgrade`: what other versions of libraries would do to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terms import files, printer
from ..terms.reasons import Misuse
from .ab import cases_of, plan_of
from .lists import AUTO


def upgrade(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="PACKAGE==VERSIONS... WORKLOAD...",
            help="Packages with the versions to try, torch==2.13,2.14, and what is measured with each of"
            " their combinations.",
        ),
    ],
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
        typer.Option(help="Measuring time of each combination, as for hotlap ab. Default: the policy's."),
    ] = "",
    policy: Annotated[Path | None, typer.Option(help="Default: gate.toml here, if there is one.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of every worker. Default: all cores.", min=0)] = 0,
    timeout: Annotated[str, typer.Option(help="Longest wait for one answer of a worker.")] = "10m",
    out: Annotated[Path | None, typer.Option(help="Folder for results. Default: runs/upgrade/ID.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the verdict; - is stdout.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown for a pull request.")] = None,
) -> int:
    """Race a model with other versions of libraries against those installed here. Each combination
    is installed on top of this environment, which stays as it is. Exit as hotlap gate.
    """
    from ..gate import upgrading
    from ..gate.overlay import upgrades
    from ..gate.policy import chosen
    from ..measure.rundir import new_id
    from ..reports.output import publish
    from .lists import target_of

    wanted = upgrades([word for word in words if "==" in word])
    names = [word for word in words if "==" not in word]
    if not names or len(names) == len(words):
        raise Misuse("name packages with versions, and a workload: hotlap upgrade 'torch==2.13,2.14' resnet")
    rules = chosen(policy)
    plan = plan_of(budget or rules.budget, timeout, threads)
    notes: list[str] = []
    target = target_of(device, notes)
    everything = cases_of(names, backends, precisions, batch, target, plan)
    cases = [case for case in everything if not rules.of(case.id).ignored]
    if not cases:
        raise Misuse("the policy ignores every case that was asked for")
    folder = (out or files.runs_folder() / "upgrade" / new_id()).resolve()
    environments = (files.runs_folder() / "upgrade" / "environments").resolve()
    for line in (*notes, *(f"with {each.name}" for each in wanted)):
        printer.note(line)
    verdicts = upgrading.judged(wanted, cases, rules, plan, folder, environments, printer.note)
    for line in upgrading.table(verdicts):
        printer.line(line)
    verdict = upgrading.joined(verdicts)
    publish(verdict, {"json": json or folder / "verdict.json", "markdown": markdown}, False)
    printer.line(f"results: {folder}")
    return verdict.exit_status
