"""`hotlap profile WORKLOAD`: capture what a case does, with the profiler of its own backend, and
say at once what is in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...perf.terms import files

NOT_CAPTURED = 4


def profile(
    workload: Annotated[
        str, typer.Argument(help="A model name (resnet, vit:base) or package.module:function.")
    ],
    backend: Annotated[
        str,
        typer.Option(
            help="One backend with its options: eager, compile\\[mode:max-autotune], onnxruntime, openvino."
        ),
    ] = "eager",
    mode: Annotated[
        str, typer.Option(help="inference, or train: steps of Lightning's own fit on the model's own data.")
    ] = "inference",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The file, .json or .json.gz. Default: runs/profile/ID/trace.json.gz."
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16, tf32.")] = "fp32",
    batch: Annotated[
        int, typer.Option(help="Default: 1; for train what the model's recipe says.", min=0)
    ] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda:N.")] = "cpu",
    wait: Annotated[int, typer.Option(help="Calls that are timed without the profiler.", min=2)] = 20,
    warmup: Annotated[int, typer.Option(help="Calls that the profiler sees and throws away.", min=1)] = 3,
    active: Annotated[int, typer.Option(help="Calls that are recorded.", min=1)] = 5,
    stacks: Annotated[bool, typer.Option("--stacks", help="Python's stacks too: costs most.")] = False,
    threads: Annotated[int, typer.Option(help="Threads. Default: all cores.", min=0)] = 0,
    checkpoint: Annotated[str, typer.Option(help="A Lightning checkpoint for package.module:Class.")] = "",
    timeout: Annotated[
        str,
        typer.Option(
            help="Longest wait for one answer of a worker; with --mode train for the whole training."
        ),
    ] = "10m",
) -> int:
    """Record a few calls of a model with its backend's own profiler, measure what the profiler
    adds, and review the file. Exit: 0 captured, 4 refused, with the reason.
    """
    import shutil
    import sys

    from ...models.catalog import names, network
    from ...perf.lookup import workloads
    from ...perf.lookup.cases import parse_backend
    from ...perf.measure import rundir
    from ...perf.terms import units
    from ...perf.terms.case import Case, Plan
    from ...perf.terms.contract import Schedule
    from ...perf.terms.reasons import Misuse, Refusal
    from ..findings import review
    from ..pages import text
    from ..recording import capture

    def report(line: str) -> None:
        print(f"  {line}", file=sys.stderr)

    workloads.check(workloads.Reference(workload, checkpoint))
    name, options = parse_backend(backend)
    file = out or files.runs_folder() / "profile" / rundir.new_id() / "trace.json.gz"
    if not file.name.endswith((".json", ".json.gz")):
        raise Misuse(f"--out {file}: a profile's name ends in .json or .json.gz")
    if file.is_dir():
        raise Misuse(f"--out {file} is a folder; name a file in it")
    if mode == "train" and (workload not in names() or name not in ("eager", "compile") or options):
        raise Misuse(
            f"--mode train trains {', '.join(names())} with eager or compile; inside your own training use"
            f" Trainer(callbacks=[hotlap.Profile({file.name!r})])"
        )
    if mode == "train" and not batch:
        batch = network(workload).recipe.batch_size
    case = Case(workload, name, precision, batch or 1, device, mode, options)
    plan = Plan(timeout_s=units.seconds(timeout), threads=threads or capture.threads())
    schedule = Schedule(wait, warmup, active, stacks)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.with_name(file.name + ".part").open("wb"):
            pass
        file.with_name(file.name + ".part").unlink()
    except OSError as error:
        raise Misuse(f"cannot write to {file.parent}: {error.strerror}; choose another --out") from None
    print(case.id, file=sys.stderr)
    work = file.parent / (file.name + ".work")
    try:
        if mode == "train":
            report(f"training {wait + warmup + active} steps")
            capture.training(case, 0, plan, schedule, file)
        else:
            capture.inference(case, checkpoint, plan, schedule, file, work, report)
            shutil.rmtree(work)
    except Refusal as refusal:
        print(
            f"hotlap: {case.id}: {refusal.reason}{f'; logs in {work}' if work.exists() else ''}",
            file=sys.stderr,
        )
        return NOT_CAPTURED
    print(f"captured  {file} ({file.stat().st_size / 1e6:.1f} MB)")
    for line in text.lines(review.review(file)):
        print(line)
    return 0
