"""`hotlap doctor --ladder`: how far each model gets with each backend and precision on targets that
are not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.table import Table

from ..lookup import workloads
from ..lookup.cases import default_backends, expand
from ..machine import cores, survey
from ..measure.rundir import RunFolder
from ..oracle import ladder
from ..reports.console import console
from ..terms.case import Case, Plan
from ..terms.files import put
from ..terms.reasons import Misuse
from ..terms.result import Result
from .progress import Quiet, carried_out
from .racing import by_default


def climb(
    names: Sequence[str],
    backends: Sequence[str],
    precisions: Sequence[str],
    targets: Sequence[str],
    json: Path | None,
) -> None:
    """Proves each case as far as it goes here, and prints a line for it.

    names: of workloads; default every model. json: file for the same, - is stdout. Raises Misuse
    for wrong names and for the CPU, which is not a ladder's target.
    """
    if wrong := [target for target in targets if target == "cpu"]:
        raise Misuse(
            f"--ladder with --target {wrong[0]}: the CPU is here, hotlap run measures on it; name a GPU or an"
            " architecture, such as --target sm_80,sm_89"
        )
    cases = asked(names or by_default(), backends, precisions, targets)
    plan = Plan(threads=cores.count())
    here = survey.collect(plan.threads, "keep")
    opened = RunFolder(None, "hotlap doctor --ladder", here, cases)
    output = console()
    results = carried_out(cases, opened, plan, here.key, Quiet(output))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("model", "backend", "precision", "target", "verified to", "by what, and why not further"):
        table.add_column(head, overflow="fold")
    for result in results:
        table.add_row(*row(result))
    output.print(table)
    output.print(". ".join(f"{rung} {meaning}" for rung, meaning in ladder.MEANING.items()), style="dim")
    output.print(f"results: {opened.file}")
    if json is not None:
        put(
            json,
            msgspec.json.format(msgspec.json.encode([summary(result) for result in results]), indent=1)
            + b"\n",
        )


def asked(
    names: Sequence[str], backends: Sequence[str], precisions: Sequence[str], targets: Sequence[str]
) -> list[Case]:
    """Returns the cases of the ladder; those with options only of backends that are named.

    Raises Misuse for a wrong name.
    """
    for name in names:
        workloads.check(workloads.Reference(name))
    named = {text.partition("[")[0] for text in backends}
    return [
        case
        for target in targets
        for case in expand(names, backends or default_backends(target), precisions, (1,), target, pace=False)
        if not case.options or case.backend in named
    ]


def row(result: Result) -> tuple[str, ...]:
    """Returns the cells of one case: the rung reached, by what, and why not further."""
    case = result.case
    backend = case.spec
    last = result.proofs[-1].evidence if result.proofs else ""
    why = "" if result.status == "verified" or result.reason is None else f"{result.status}: {result.reason}"
    return (
        case.workload,
        backend,
        case.precision,
        case.target,
        result.verified_to,
        "; ".join(text for text in (why, last) if text),
    )


def summary(result: Result) -> dict[str, object]:
    """Returns what --json holds of a case: its id, the rung, every rung's evidence, and the reason
    it ended.
    """
    return {
        "case": result.case.id,
        "status": result.status,
        "verified_to": result.verified_to,
        "reason": result.reason,
        "proofs": result.proofs,
        "deviation": result.deviation,
    }
