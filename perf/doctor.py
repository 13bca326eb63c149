"""`hotlap doctor`: what this machine has, what can run on it and what not and why, how fast it can be, and how noisy it is right now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

LADDER_TARGETS = "sm_80,sm_89"


def doctor(
    workload: Annotated[list[str] | None, typer.Argument(help="With --ladder: model names or package.module:function. Default: every model.")] = None,
    seconds: Annotated[float, typer.Option(help="How long to listen to the machine's noise.", min=1.0)] = 5.0,
    target: Annotated[str, typer.Option("--target", "--device", help=f"cpu or cuda:N; with --ladder comma-separated, such as {LADDER_TARGETS}, the default there.")] = "",
    ladder: Annotated[bool, typer.Option("--ladder", help="How far each model gets with each backend and precision on GPUs that are not here, and by what proof.")] = False,
    backends: Annotated[str, typer.Option(help="With --ladder: comma-separated. Default: all.")] = "",
    precisions: Annotated[str, typer.Option(help="With --ladder: comma-separated.")] = "fp32,fp16,bf16,int8",
    json: Annotated[Path | None, typer.Option(help="With --ladder: write it as JSON to this file; - is stdout.")] = None,
) -> int:
    """Check the machine: devices, libraries, backends, peaks, noise. With --ladder: what can be proven here of GPUs that are not."""
    from .reasons import Misuse

    if ladder:
        from .ladder_command import climb
        from .run import split

        return climb(workload or [], split(backends), split(precisions), split(target or LADDER_TARGETS), json)
    if workload or backends or json is not None:
        raise Misuse("models, --backends and --json go with hotlap doctor --ladder")
    return machine(seconds, target or "cpu")


def machine(seconds: float, device: str) -> int:
    """Prints what this machine has and does."""
    import os
    import tempfile

    from rich.table import Table

    from . import environment, noise, plugins, report
    from .entrant import Entrant
    from .prepare import clean
    from .reasons import Refusal
    from .units import scaled

    console = report.console()
    cores = len(os.sched_getaffinity(0))
    here = environment.collect(cores, "keep")
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_row("hardware", here.hardware)
    facts.add_row("system", f"{here.system}, Python {here.python}, huge pages {here.hugepages}")
    facts.add_row("GPU", f"{', '.join(here.gpus)}, driver {here.driver}" if here.gpus else "none that NVML can see")
    facts.add_row("libraries", ", ".join(f"{name} {version}" for name, version in here.libraries.items()))
    console.print(facts)
    backends = Table(box=None, pad_edge=False)
    for head in ("backend", device, ""):
        backends.add_column(head)
    for name in plugins.found("hotlap.backends"):
        module = plugins.backend(name)
        reason = module.available(device)
        backends.add_row(name, "yes" if reason is None else "no", module.SUMMARY if reason is None else str(reason))
    console.print()
    console.print(backends)
    console.print()
    with tempfile.TemporaryDirectory() as folder:
        worker = Entrant.start(clean(), Path(folder) / "log.txt")
        try:
            console.print(f"scheduling priority of workers: {worker.ask('prefer', 60)}", markup=False)
            for precision in ("fp32", "bf16"):
                peaks = worker.ask("peaks", 300, precision=precision, threads=cores)
                console.print(f"peak {precision}: {scaled(peaks['flop_rate'], 'FLOP/s')} (matrix product), {scaled(peaks['byte_rate'], 'B')}/s (copy), {cores} threads")
        except Refusal as refusal:
            console.print(f"peak: {refusal.reason}")
        finally:
            worker.kill()
    heard = noise.listen(seconds)
    seen = heard.levels
    console.print(f"noise: {seen.samples:.1%} between samples of a fixed Python loop on one core, slowest 5 % take {seen.tail:.2f}x the median (more: hotlap noise)")
    for cause in heard.causes:
        console.print(f"  {cause}", markup=False)
    return 0
