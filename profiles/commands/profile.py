"""`hotlap profile WORKLOAD`: capture what a case does, with the profiler of its own backend, and
say at once what is in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...perf.commands.lists import AUTO, arguments_of, target_of
from ...perf.terms import files, printer

if TYPE_CHECKING:
    from ...perf.lookup.workloads import Reference
    from ...perf.terms.case import Case, Plan
    from ...perf.terms.contract import Schedule

# Of one kind, as many calls as nobody waits for.
MOST_CALLS = 1_000_000
# Exit status where the case was refused.
NOT_CAPTURED = 4


def profile(
    workload: Annotated[
        str, typer.Argument(help="A model name (resnet, vit:base), package.module:function, or model.onnx.")
    ],
    backend: Annotated[
        str,
        typer.Option(
            help=(
                "One backend with its options: eager, compile\\[mode:max-autotune], onnxruntime, openvino."
                " Default: eager, of an ONNX file onnxruntime."
            )
        ),
    ] = "",
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
        int,
        typer.Option(help="Default: 1, or the only one that the model takes; for train its recipe's.", min=0),
    ] = 0,
    device: Annotated[
        str,
        typer.Option("--target", "--device", help="auto (the first GPU, or else the CPU), cpu or cuda:N."),
    ] = AUTO,
    wait: Annotated[
        int, typer.Option(help="Calls that are timed without the profiler.", min=2, max=MOST_CALLS)
    ] = 20,
    warmup: Annotated[
        int, typer.Option(help="Calls that the profiler sees and throws away.", min=1, max=MOST_CALLS)
    ] = 3,
    active: Annotated[int, typer.Option(help="Calls that are recorded.", min=1, max=MOST_CALLS)] = 5,
    stacks: Annotated[bool, typer.Option("--stacks", help="Python's stacks too: costs most.")] = False,
    threads: Annotated[int, typer.Option(help="Threads. Default: all cores.", min=0)] = 0,
    checkpoint: Annotated[str, typer.Option(help="A checkpoint for package.module:Class or :function.")] = "",
    arg: Annotated[
        list[str] | None,
        typer.Option(help="An argument, as for hotlap run: hidden=48. May be repeated."),
    ] = None,
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
    from ...perf.lookup import workloads
    from ...perf.lookup.cases import baseline_of
    from ...perf.measure.examine import default_batch
    from ...perf.terms import units
    from ...perf.terms.case import Plan
    from ...perf.terms.contract import Schedule
    from ..findings import review
    from ..pages import text
    from ..recording import capture

    reference = workloads.named(workload, checkpoint, arguments_of(arg or []))
    workloads.check(reference)
    file = destination(out)
    plan = Plan(timeout_s=units.seconds(timeout), threads=threads or capture.threads())
    if not batch and mode != "train":
        batch = default_batch(reference, plan)
    notes: list[str] = []
    backend = backend or baseline_of(reference.text)
    case = chosen(reference.text, backend, mode, precision, batch, target_of(device, notes), file)
    writable(file)
    for line in notes:
        printer.note(line)
    if not recorded(case, reference, plan, Schedule(wait, warmup, active, stacks), file):
        return NOT_CAPTURED
    printer.line(f"captured  {file} ({file.stat().st_size / 1e6:.1f} MB)")
    for line in text.lines(review.review(file)):
        printer.line(line)
    return 0


def destination(out: Path | None) -> Path:
    """Returns the file that is written. Raises Misuse for a name that is no profile's."""
    from ...perf.measure import rundir
    from ...perf.terms.reasons import Misuse

    file = out or files.runs_folder() / "profile" / rundir.new_id() / "trace.json.gz"
    if not file.name.endswith((".json", ".json.gz")):
        raise Misuse(f"--out {file}: a profile's name ends in .json or .json.gz")
    if file.is_dir():
        raise Misuse(f"--out {file} is a folder; name a file in it")
    if file.exists() and not file.is_file():
        raise Misuse(f"--out {file} is no regular file, and the profile is read again; name a file")
    return file


def chosen(
    workload: str, backend: str, mode: str, precision: str, batch: int, device: str, file: Path
) -> Case:
    """Returns the case that the options name. Raises Misuse for a training that is not ours."""
    from ...models.catalog import names
    from ...perf.lookup.cases import parse_backend
    from ...perf.terms.case import Case
    from ...perf.terms.reasons import Misuse

    name, options = parse_backend(backend)
    if mode == "train" and (workload not in names() or name not in ("eager", "compile") or options):
        raise Misuse(
            f"--mode train trains {', '.join(names())} with eager or compile; inside your own training use"
            f" Trainer(callbacks=[hotlap.Profile({file.name!r})])"
        )
    if mode == "train" and not batch:
        from ...models.training.configuration import Configuration, words

        batch = Configuration(words(workload)).config.data.init_args.batch_size
    return Case(workload, name, precision, batch, device, mode, options)


def writable(file: Path) -> None:
    """Makes the file's folder. Raises Misuse where it cannot be written to."""
    import tempfile

    from ...perf.terms.reasons import Misuse

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise Misuse(f"cannot write to {file.parent}: {error.strerror}; choose another --out") from None


def recorded(case: Case, reference: Reference, plan: Plan, schedule: Schedule, file: Path) -> bool:
    """Writes the file; returns whether it could be, and says on stderr why not."""
    import shutil
    import tempfile

    from ...perf.terms.reasons import Refusal
    from ..recording import capture

    def report(line: str) -> None:
        printer.note(f"  {line}")

    printer.note(case.id)
    work = Path(tempfile.mkdtemp(prefix="profile-", suffix=".work", dir=file.parent))
    try:
        if case.mode == "train":
            report(f"training {schedule.wait + schedule.warmup + schedule.active} steps")
            capture.training(case, 0, plan, schedule, file)
        else:
            capture.inference(case, reference, plan, schedule, file, work, report)
        shutil.rmtree(work)
    except Refusal as refusal:
        logs = f"; logs in {work}" if any(work.iterdir()) else ""
        printer.note(f"hotlap: {case.id}: {refusal.reason}{logs}")
        return False
    return True
