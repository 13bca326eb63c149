"""`hotlap doctor`: what this machine has, what can run on it and what not and why, how fast it can
be, and how noisy it is right now.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..machine import survey

if TYPE_CHECKING:
    from rich.table import Table

    from ..machine.telemetry import Device, State

LADDER_TARGETS = "sm_80,sm_89"


def doctor(
    workload: Annotated[
        list[str] | None,
        typer.Argument(help="With --ladder: model names or package.module:function. Default: every model."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long to listen to the machine's noise.", min=1.0)] = 5.0,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            "--device",
            help=(
                f"cpu or cuda:N; with --ladder comma-separated, such as {LADDER_TARGETS}, the default there."
            ),
        ),
    ] = "",
    ladder: Annotated[
        bool,
        typer.Option(
            "--ladder",
            help=(
                "How far each model gets with each backend and precision on GPUs that are not here, and by"
                " what proof."
            ),
        ),
    ] = False,
    backends: Annotated[str, typer.Option(help="With --ladder: comma-separated. Default: all.")] = "",
    precisions: Annotated[str, typer.Option(help="With --ladder: comma-separated.")] = "fp32,fp16,bf16,int8",
    json: Annotated[
        Path | None, typer.Option(help="With --ladder: write it as JSON to this file; - is stdout.")
    ] = None,
) -> int:
    """Check the machine: devices, libraries, backends, peaks, noise.

    With --ladder: what can be proven here of GPUs that are not.
    """
    from ..terms.reasons import Misuse

    if ladder:
        from .ladder import climb
        from .lists import split

        return climb(
            workload or [], split(backends), split(precisions), split(target or LADDER_TARGETS), json
        )
    if workload or backends or json is not None:
        raise Misuse("models, --backends and --json go with hotlap doctor --ladder")
    return machine(seconds, target or "cpu")


def machine(seconds: float, device: str) -> int:
    """Prints what this machine has and does."""
    import tempfile

    from rich.table import Table

    from ..lookup import plugins
    from ..machine import noise
    from ..measure.prepare import clean
    from ..race.handle import Worker
    from ..reports import report
    from ..terms.reasons import Refusal
    from ..terms.units import scaled

    console = report.console()
    cores = len(os.sched_getaffinity(0))
    here = survey.collect(cores, "keep")
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_row("hardware", here.hardware)
    facts.add_row("system", f"{here.system}, Python {here.python}, huge pages {here.hugepages}")
    facts.add_row(
        "GPU", f"{', '.join(here.gpus)}, driver {here.driver}" if here.gpus else "none that NVML can see"
    )
    facts.add_row("libraries", ", ".join(f"{name} {version}" for name, version in here.libraries.items()))
    console.print(facts)
    if here.gpus:
        console.print()
        console.print(devices())
    backends = Table(box=None, pad_edge=False)
    for head in ("backend", device, ""):
        backends.add_column(head)
    for name in plugins.found("hotlap.backends"):
        module = plugins.backend(name)
        reason = module.available(device)
        backends.add_row(
            name, "yes" if reason is None else "no", module.SUMMARY if reason is None else str(reason)
        )
    console.print()
    console.print(backends)
    console.print()
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker.start(clean(), Path(folder) / "log.txt")
        try:
            console.print(f"scheduling priority of workers: {worker.ask('prefer', 60)}", markup=False)
            for precision in ("fp32", "bf16"):
                peaks = worker.ask("peaks", 300, precision=precision, threads=cores)
                console.print(
                    f"peak {precision}: {scaled(peaks['flop_rate'], 'FLOP/s')} (matrix product),"
                    f" {scaled(peaks['byte_rate'], 'B')}/s (copy), {cores} threads"
                )
        except Refusal as refusal:
            console.print(f"peak: {refusal.reason}")
        finally:
            worker.kill()
    heard = noise.listen(seconds)
    seen = heard.levels
    console.print(
        f"noise: {seen.samples:.1%} between samples of a fixed Python loop on one core, slowest 5 % take"
        f" {seen.tail:.2f}x the median (more: hotlap noise)"
    )
    for cause in heard.causes:
        console.print(f"  {cause}", markup=False)
    return 0


def devices() -> Table:
    """One row a device, slices below their GPU.

    What a device does not tell is a dash with its reason below; what cannot be asked at all says
    why.
    """
    from rich.table import Table
    from rich.text import Text

    from ..machine import cuda_devices
    from ..terms.reasons import Refusal

    table = Table(box=None, pad_edge=False, caption_justify="left")
    for head in (
        "GPU",
        "CUDA",
        "memory used",
        "of",
        "SM clock",
        "memory clock",
        "power",
        "temperature",
        "held down by",
        "ECC errors",
        "MIG",
    ):
        table.add_column(head)
    notes: list[str] = []
    untold: dict[str, dict[str, list[str]]] = {}
    names: dict[str, str] = {}
    found: list[Device] = []
    try:
        gpus = cuda_devices.gpus()
        found = [part for gpu in gpus for part in (gpu, *gpu.mig())]
        names = {
            device.uuid: f"cuda:{number}"
            for number, device in enumerate(cuda_devices.visible(gpus, os.environ))
        }
    except Refusal as refused:
        notes.append(str(refused.reason))
    for device in found:
        try:
            state = device.read()
            table.add_row(*row(device, state, names.get(device.uuid, "-")))
        except Refusal as refused:
            notes.append(f"{device.name}: {refused.reason}")
            continue
        for name, reason in state.absent.items():
            untold.setdefault(reason.detail.partition(": ")[2], {}).setdefault(name, []).append(device.name)
    for why, names_of in untold.items():
        owners = dict.fromkeys(owner for some in names_of.values() for owner in some)
        notes.append(f"{', '.join(owners)}: no {', '.join(names_of)}: {why}")
    table.caption = Text("\n".join(notes)) if notes else None
    return table


def row(device: Device, state: State, name: str) -> tuple[str, ...]:
    from ..terms.units import scaled

    def shown(value: float | None, unit: str) -> str:
        return "-" if value is None else scaled(value, unit)

    errors = [
        f"{count} {kind}"
        for kind, count in (("uncorrected", state.ecc_uncorrected), ("corrected", state.ecc_corrected))
        if count is not None
    ]
    return (
        f"{'  ' if device.parent else ''}{device.name}",
        name,
        shown(state.used_bytes, "B"),
        shown(state.total_bytes, "B"),
        shown(state.sm_clock_hz, "Hz"),
        shown(state.memory_clock_hz, "Hz"),
        shown(state.power_w, "W"),
        "-" if state.temperature_c is None else f"{state.temperature_c} °C",
        "-" if state.throttle is None else ", ".join(state.throttle) or "nothing",
        ", ".join(errors) or "-",
        device.mig_mode() if device.parent is None else "slice",
    )
