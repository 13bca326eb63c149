"""`hotlap doctor --ladder`: how far each model gets with each backend and precision on targets that
are not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..machine import survey
from ..terms.result import Result


def climb(
    workloads_: Sequence[str],
    backends: Sequence[str],
    precisions: Sequence[str],
    targets: Sequence[str],
    json: Path | None,
) -> int:
    """Prints a line a case.

    0 where every case got its rung or its reason. Raises Misuse for wrong names and for the CPU,
    which is not a ladder's target.
    """
    import os

    import msgspec
    from rich.table import Table
    from rich.text import Text

    from ..lookup import workloads
    from ..lookup.cases import default_backends, expand
    from ..measure import rundir
    from ..oracle import ladder
    from ..reports import report
    from ..terms.case import Plan
    from ..terms.files import put
    from ..terms.reasons import Misuse
    from .progress import Quiet, carried_out
    from .racing import by_default

    if wrong := [target for target in targets if target == "cpu"]:
        raise Misuse(
            f"--ladder with --target {wrong[0]}: the CPU is here, hotlap run measures on it; name a GPU or an"
            " architecture, such as --target sm_80,sm_89"
        )
    names = list(workloads_) or by_default()
    for name in names:
        workloads.check(workloads.Reference(name))
    cases = [
        case
        for target in targets
        for case in expand(names, backends or default_backends(target), precisions, (1,), target, pace=False)
    ]
    cases = [
        case
        for case in cases
        if not case.options or case.backend in {text.partition("[")[0] for text in backends}
    ]
    plan = Plan(threads=len(os.sched_getaffinity(0)))
    here = survey.collect(plan.threads, "keep")
    opened = rundir.RunFolder(None, "hotlap doctor --ladder", here, cases)
    console = report.console()
    results = carried_out(cases, opened, plan, here.key, Quiet(console))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("model", "backend", "precision", "target", "verified to", "by what, and why not further"):
        table.add_column(head, overflow="fold")
    for one in results:
        table.add_row(*(Text(text) for text in row(one)))
    console.print(table)
    console.print(
        "[dim]" + ". ".join(f"{rung} {meaning}" for rung, meaning in ladder.MEANING.items()) + "[/dim]"
    )
    console.print(f"results: {opened.file}", highlight=False)
    if json is not None:
        put(
            json,
            msgspec.json.format(msgspec.json.encode([summary(one) for one in results]), indent=1) + b"\n",
        )
    return 0


def row(one: Result) -> tuple[str, ...]:
    case = one.case
    backend = case.spec
    last = one.proofs[-1].evidence if one.proofs else ""
    why = "" if one.status == "verified" or one.reason is None else f"{one.status}: {one.reason}"
    return (
        case.workload,
        backend,
        case.precision,
        case.target,
        one.verified_to,
        "; ".join(text for text in (why, last) if text),
    )


def summary(one: Result) -> dict[str, object]:
    """What --json holds of a case: its id, the rung, every rung's evidence, and the reason it
    ended.
    """
    return {
        "case": one.case.id,
        "status": one.status,
        "verified_to": one.verified_to,
        "reason": one.reason,
        "proofs": one.proofs,
        "deviation": one.deviation,
    }
