"""What `hotlap doctor` prints of this machine: hardware and libraries, GPUs, which backends run
here, peaks, noise.
"""

from __future__ import annotations

import os

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..lookup import plugins
from ..machine import cores, cuda_devices, survey
from ..machine.noise import listen
from ..machine.telemetry import Device, State
from ..measure.prepare import clean
from ..race import leavings
from ..race.handle import Worker
from ..race.messages import MeasurePeaks, Prefer
from ..reports.console import console
from ..terms import escape
from ..terms.environment import Environment
from ..terms.reasons import Refusal
from ..terms.units import scaled

DEVICE_HEAD = (
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
)
# How long a worker may take to say its scheduling priority, s: it only has to start.
PRIORITY_TIMEOUT_S = 60.0
# How long it may take to measure its peaks, s: on a slow and busy machine they take minutes.
PEAKS_TIMEOUT_S = 300.0


def show_machine(seconds: float, device: str) -> None:
    """Prints what this machine has and does.

    seconds: how long to listen to its noise. device: what backends are asked for.
    """
    output = console()
    threads = cores.count()
    here = survey.collect(threads, "keep")
    output.print(hardware(here))
    if here.gpus:
        output.print()
        output.print(devices())
    output.print()
    output.print(backends(device))
    output.print()
    show_peaks(output, threads)
    show_noise(output, seconds)


def hardware(here: Environment) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("hardware", here.hardware)
    table.add_row("system", f"{here.system}, Python {here.python}, huge pages {here.hugepages}")
    gpus = f"{', '.join(here.gpus)}, driver {here.driver}" if here.gpus else "none that NVML can see"
    table.add_row("GPU", gpus)
    table.add_row("libraries", ", ".join(f"{name} {version}" for name, version in here.libraries.items()))
    return table


def backends(device: str) -> Table:
    """Returns a row for each backend: whether it runs on this device, and what it is or why not."""
    table = Table(box=None, pad_edge=False)
    for head in ("backend", device, ""):
        table.add_column(head)
    for name in plugins.modules("hotlap.backends"):
        module = plugins.backend(name)
        reason = module.available(device)
        runs = "yes" if reason is None else "no"
        table.add_row(name, runs, module.SUMMARY if reason is None else str(reason))
    return table


def show_peaks(output: Console, cores: int) -> None:
    """Prints the scheduling priority that a worker gets, and how fast it multiplies and copies."""
    with leavings.temporary_folder() as folder:
        worker = Worker.start(clean(), folder / "log.txt")
        try:
            priority = worker.ask(Prefer(), PRIORITY_TIMEOUT_S)
            output.print(f"scheduling priority of workers: {priority}")
            for precision in ("fp32", "bf16"):
                peaks = worker.ask(MeasurePeaks(precision, cores), PEAKS_TIMEOUT_S)
                output.print(
                    f"peak {precision}: {scaled(peaks['flop_rate'], 'FLOP/s')} (matrix product),"
                    f" {scaled(peaks['byte_rate'], 'B')}/s (copy), {cores} threads"
                )
        except Refusal as refusal:
            output.print(f"peak: {refusal.reason}")
        finally:
            worker.kill()


def show_noise(output: Console, seconds: float) -> None:
    """Listens to the machine for so long and prints how much a fixed loop varies, and why."""
    heard = listen(seconds)
    levels = heard.levels
    output.print(
        f"noise: {levels.samples:.1%} between samples of a fixed Python loop on one core, slowest 5 % take"
        f" {levels.tail:.2f}x the median (more: hotlap noise)"
    )
    for cause in heard.causes:
        output.print(f"  {cause}")


def devices() -> Table:
    """Returns a row for each GPU, and below it one for each of its slices.

    What a device does not tell is a dash with its reason below; what cannot be asked at all says
    why.
    """
    table = Table(box=None, pad_edge=False, caption_justify="left")
    for head in DEVICE_HEAD:
        table.add_column(head)
    notes: list[str] = []
    untold: dict[str, dict[str, list[str]]] = {}
    names: dict[str, str] = {}
    parts: list[Device] = []
    try:
        gpus = cuda_devices.gpus()
        parts = [part for gpu in gpus for part in (gpu, *gpu.mig())]
        names = {
            device.uuid: f"cuda:{number}"
            for number, device in enumerate(cuda_devices.visible(gpus, os.environ))
        }
    except Refusal as refused:
        notes.append(str(refused.reason))
    for device in parts:
        try:
            state = device.read()
            table.add_row(*row(device, state, names.get(device.uuid, "-")))
        except Refusal as refused:
            notes.append(f"{device.name}: {refused.reason}")
            continue
        for name, reason in state.absent.items():
            untold.setdefault(reason.detail.partition(": ")[2], {}).setdefault(name, []).append(device.name)
    for why, names_of in untold.items():
        owners = dict.fromkeys(owner for owners in names_of.values() for owner in owners)
        notes.append(f"{', '.join(owners)}: no {', '.join(names_of)}: {why}")
    table.caption = Text("\n".join(map(escape.plain, notes))) if notes else None
    return table


def row(device: Device, state: State, name: str) -> tuple[str, ...]:
    """Returns the cells of one GPU or slice, in the order of DEVICE_HEAD. name: cuda:N, or -."""

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
