"""What an NVIDIA device says of itself, by NVML (nvidia-ml-py): memory, clocks and what holds them
down, power, energy, load, ECC errors, temperature.

A device may be a MIG slice (which one CUDA means: cuda_devices.py). What a device does not support
is absent with a reason, never 0. Nothing is asked of NVML at import. Without a device:
tests/perf/nvml/standin.c answers in its place, in a child process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from ..terms.reasons import Code, Reason, Refusal

# nvml.h, nvmlClocksEventReasons; the last two are of the older nvmlClocksThrottleReasons.
THROTTLE_BITS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}
# Clocks that an idle device lowers, or that somebody chose, are no disturbance.
HARMLESS = ("gpu_idle", "applications_clocks_setting", "display_clock_setting")
# Below 100 updates the two ends of a window, each off by up to one update, are more than 1 % of it.
LEAST_UPDATES = 100
FIRST_UPDATES = 5
STANDS_STILL_S = 2.0
LISTS = "the process lists of NVML"
DELTA = "what the device's used memory grew by since this process opened it, other processes included"


class State(msgspec.Struct, frozen=True):
    """A device at one moment; None stands in `absent` with its reason.

    used_bytes holds what the driver reserves. process_bytes: of this process, by process_source.
    throttle: what holds the clocks, () for nothing. energy_j: since the driver was loaded.
    Utilisations: share (0 to 1) of the last sampling period of the driver in which a kernel ran or
    memory was moved. ECC errors: since the driver was loaded (volatile).
    """

    total_bytes: int | None = None
    used_bytes: int | None = None
    free_bytes: int | None = None
    process_bytes: int | None = None
    process_source: str = ""
    sm_clock_hz: int | None = None
    memory_clock_hz: int | None = None
    throttle: tuple[str, ...] | None = None
    power_w: float | None = None
    energy_j: float | None = None
    gpu_utilisation: float | None = None
    memory_utilisation: float | None = None
    ecc_uncorrected: int | None = None
    ecc_corrected: int | None = None
    temperature_c: int | None = None
    absent: dict[str, Reason] = {}


class Span(msgspec.Struct, frozen=True):
    """A device before and after a block.

    throttle: what held its clocks at the end of any turn, or at either end.
    """

    before: State
    after: State
    throttle: tuple[str, ...] = ()

    @property
    def throttled(self) -> tuple[str, ...]:
        seen = {*self.throttle, *(self.before.throttle or ()), *(self.after.throttle or ())}
        return tuple(sorted(seen - set(HARMLESS)))


class Window(msgspec.Struct, frozen=True):
    """Energy of some calls, from one update of the counter to a later one."""

    energy_j: float
    calls: int
    updates: int
    length_s: float


class Device:
    """An open device: a GPU, or a MIG slice of `parent`. Raises Refusal(no_device or crashed)."""

    def __init__(self, nvml: Any, handle: Any, parent: Device | None = None) -> None:
        self.nvml, self.handle, self.parent = nvml, handle, parent
        self.uuid = str(self.ask("nvmlDeviceGetUUID"))
        self.name = str(self.ask("nvmlDeviceGetName"))
        self.start_used_bytes: int | None = None
        try:
            self.start_used_bytes = _memory(self)[1]
        except Refusal as refused:
            if refused.reason.code == "crashed":
                raise

    def ask(self, function: str, *arguments: Any) -> Any:
        """Raises Refusal where the device or this function does not answer; crashed: the device is
        lost, and nothing else of it can be trusted.
        """
        try:
            return getattr(self.nvml, function)(self.handle, *arguments)
        except self.nvml.NVMLError as error:
            raise refusal(self.nvml, error, function, self.parent is not None) from error

    @property
    def architecture(self) -> str:
        """sm_90. Raises Refusal."""
        return "sm_{}{}".format(*self.ask("nvmlDeviceGetCudaComputeCapability"))

    def mig(self) -> list[Device]:
        """The slices of this GPU; empty where MIG is off or unknown to it.

        Raises Refusal(crashed).
        """
        nvml, found = self.nvml, []
        try:
            if self.ask("nvmlDeviceGetMigMode")[0] != nvml.NVML_DEVICE_MIG_ENABLE:
                return []
            places = self.ask("nvmlDeviceGetMaxMigDeviceCount")
        except Refusal as without:
            if without.reason.code == "crashed":
                raise
            return []
        for place in range(places):
            try:
                handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(self.handle, place)
            except nvml.NVMLError as error:
                if error.value in (nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_ERROR_NO_PERMISSION):
                    continue  # a place without a slice, or with one that this container may not see
                raise refusal(nvml, error, "nvmlDeviceGetMigDeviceHandleByIndex", False) from error
            found.append(Device(nvml, handle, self))
        return found

    def mig_mode(self) -> str:
        """off, on, on after a reset, off after a reset; a slice says of which GPU; otherwise why
        there is none.
        """
        if self.parent is not None:
            return f"slice of {self.parent.uuid}"
        try:
            current, pending = self.ask("nvmlDeviceGetMigMode")
        except Refusal as refused:
            if refused.reason.code == "crashed":
                raise
            return (
                "not supported"
                if refused.reason.code == "unsupported_target"
                else f"unknown: {refused.reason.detail}"
            )
        words = ("off", "on")
        return words[current] if current == pending else f"{words[current]}, {words[pending]} after a reset"

    def read(self) -> State:
        """All that the device tells now. Raises Refusal(crashed) where it is lost."""
        found: dict[str, Any] = {}
        absent: dict[str, Reason] = {}
        for names, read in READINGS:
            try:
                found.update(zip(names, read(self), strict=True))
            except Refusal as refused:
                if refused.reason.code == "crashed":
                    raise
                absent.update(dict.fromkeys(names, refused.reason))
        try:
            found["process_bytes"], found["process_source"] = self.process(found.get("used_bytes"))
        except Refusal as refused:
            if refused.reason.code == "crashed":
                raise
            absent["process_bytes"] = refused.reason
        return State(**found, absent=absent)

    def process(self, used_bytes: int | None) -> tuple[int, str]:
        """Memory of this process in bytes, and by which source.

        A process that draws and computes is in both lists with all of its memory: the larger
        counts.

        Containers may hide process ids, and drivers the memory of each. Raises Refusal where there
        is nothing to go by.
        """
        own = []
        why = "this process is in no list: it has not used the device yet, or a container hides process ids"
        for function in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
            try:
                entries = [entry for entry in self.ask(function) if entry.pid == os.getpid()]
            except Refusal as refused:
                if refused.reason.code == "crashed":
                    raise
                why = refused.reason.detail
                continue
            if entries and all(entry.usedGpuMemory is None for entry in entries):
                why = "the driver does not tell the memory of a process"
            own += [int(entry.usedGpuMemory) for entry in entries if entry.usedGpuMemory is not None]
        if own:
            return max(own), LISTS
        if used_bytes is None or self.start_used_bytes is None:
            raise Refusal("unsupported_target", f"{why}; nor is there the device's used memory")
        return max(0, used_bytes - self.start_used_bytes), f"{DELTA} ({why})"

    def throttle(self) -> tuple[str, ...]:
        """Names of what holds the clocks, unknown bits by their number. Raises Refusal."""
        functions = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
        mask = int(self.newest(functions))
        unknown = [
            bit for bit in (1 << place for place in range(64)) if mask & bit and bit not in THROTTLE_BITS
        ]
        return tuple(
            [name for bit, name in THROTTLE_BITS.items() if mask & bit] + [f"bit {bit:#x}" for bit in unknown]
        )

    def newest(self, functions: Sequence[str], *arguments: Any) -> Any:
        """The answer of the first function that both nvidia-ml-py and the driver have.

        Raises Refusal, AttributeError where nvidia-ml-py has none.
        """
        known = [function for function in functions if hasattr(self.nvml, function)] or list(functions)
        for function in known[:-1]:
            try:
                return self.ask(function, *arguments)
            except Refusal as refused:
                if refused.reason.code != "dep_conflict":
                    raise
        return self.ask(known[-1], *arguments)

    def energy_j(self) -> float:
        """Joules since the driver was loaded. Raises Refusal."""
        return float(self.ask("nvmlDeviceGetTotalEnergyConsumption")) / 1e3

    def window(self, work: Callable[[], None], cap_s: float) -> Window:
        """Calls `work` (which ends when the device has finished) until the energy counter was
        updated LEAST_UPDATES times.

        Both ends lie at an update. Raises Refusal where that would take longer than cap_s, where
        the counter stands still or goes back, or is not there.
        """
        begun = time.perf_counter()
        last = start = self.energy_j()
        at = begun
        calls, updates = 0, -1
        while True:
            work()
            now, counter = time.perf_counter(), self.energy_j()
            calls += 1
            if counter < last:
                raise Refusal(
                    "not_steady",
                    f"the energy counter went back from {last:g} J to {counter:g} J: the driver was loaded"
                    " anew",
                )
            if counter > last:
                updates += 1
                last = counter
                if updates == 0:
                    start, at, calls = counter, now, 0
            elif updates <= 0 and calls > 1 and now - at >= STANDS_STILL_S:
                raise Refusal(
                    "unsupported_target",
                    f"the energy counter stood still for {now - at:.1f} s and {calls} calls",
                )
            if updates >= LEAST_UPDATES:
                return Window(counter - start, calls, updates, now - at)
            needed_s = (now - at) * LEAST_UPDATES / updates if updates > 0 else 0.0
            if now - begun >= cap_s or (updates >= FIRST_UPDATES and needed_s > cap_s):
                more = (
                    f"; {LEAST_UPDATES} take about {needed_s:.1f} s: raise --budget {needed_s / cap_s:.1f}"
                    " times"
                    if needed_s
                    else ""
                )
                raise Refusal(
                    "timeout",
                    f"{max(0, updates)} updates of the energy counter in {now - begun:.2f} s of the"
                    f" {cap_s:.2f} s that the budget leaves for it{more}",
                )


Reading = tuple[tuple[str, ...], Callable[[Device], tuple[Any, ...]]]


def _memory(device: Device) -> tuple[int, int, int]:
    found = device.ask("nvmlDeviceGetMemoryInfo")
    return found.total, found.used, found.free


def _utilisation(device: Device) -> tuple[float, float]:
    found = device.ask("nvmlDeviceGetUtilizationRates")
    return found.gpu / 100, found.memory / 100


def _ecc(kind: str) -> Callable[[Device], tuple[int]]:
    return lambda device: (
        device.ask(
            "nvmlDeviceGetTotalEccErrors",
            getattr(device.nvml, f"NVML_MEMORY_ERROR_TYPE_{kind}"),
            device.nvml.NVML_VOLATILE_ECC,
        ),
    )


READINGS: tuple[Reading, ...] = (
    (("total_bytes", "used_bytes", "free_bytes"), _memory),
    (
        ("sm_clock_hz",),
        lambda device: (device.ask("nvmlDeviceGetClockInfo", device.nvml.NVML_CLOCK_SM) * 1_000_000,),
    ),
    (
        ("memory_clock_hz",),
        lambda device: (device.ask("nvmlDeviceGetClockInfo", device.nvml.NVML_CLOCK_MEM) * 1_000_000,),
    ),
    (("throttle",), lambda device: (device.throttle(),)),
    (("power_w",), lambda device: (device.ask("nvmlDeviceGetPowerUsage") / 1e3,)),
    (("energy_j",), lambda device: (device.energy_j(),)),
    (("gpu_utilisation", "memory_utilisation"), _utilisation),
    (("ecc_uncorrected",), _ecc("UNCORRECTED")),
    (("ecc_corrected",), _ecc("CORRECTED")),
    (
        ("temperature_c",),
        lambda device: (
            device.newest(
                ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"), device.nvml.NVML_TEMPERATURE_GPU
            ),
        ),
    ),
)


def refusal(nvml: Any, error: Any, function: str, on_slice: bool) -> Refusal:
    """An error of NVML as a reason: crashed only where the device or the driver is gone."""
    lost = (
        nvml.NVML_ERROR_GPU_IS_LOST,
        nvml.NVML_ERROR_RESET_REQUIRED,
        nvml.NVML_ERROR_UNINITIALIZED,
        nvml.NVML_ERROR_DRIVER_NOT_LOADED,
    )
    if error.value in lost:
        return Refusal("crashed", f"{function}: {error}; the device or its driver is gone, see dmesg for Xid")
    codes: dict[int, tuple[Code, str]] = {
        nvml.NVML_ERROR_NOT_SUPPORTED: ("unsupported_target", "this device does not support it"),
        nvml.NVML_ERROR_NO_PERMISSION: ("no_device", "this user may not read it; ask as root"),
        nvml.NVML_ERROR_FUNCTION_NOT_FOUND: (
            "dep_conflict",
            "the driver is older than nvidia-ml-py and has no such function",
        ),
    }
    code, remedy = codes.get(error.value, ("no_device", "NVML gave no value"))
    if on_slice and error.value in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_INVALID_ARGUMENT):
        code = "unsupported_target"
        remedy = (
            "NVML does not support it on a MIG slice; the whole GPU's would hold the work of other slices"
        )
    return Refusal(code, f"{function}: {error}; {remedy}")


class Growth(NamedTuple):
    """ECC errors from the first block to the last; None where the device does not count them."""

    uncorrected: int | None
    corrected: int | None


def ecc_growth(spans: Sequence[Span]) -> Growth:
    first, last = spans[0].before, spans[-1].after

    def grown(before: int | None, after: int | None) -> int | None:
        """A counter that fell was set to 0 in between: at least what stands now is new."""
        return None if before is None or after is None else after - before if after >= before else after

    return Growth(
        grown(first.ecc_uncorrected, last.ecc_uncorrected), grown(first.ecc_corrected, last.ecc_corrected)
    )


def warnings(spans: Sequence[Span]) -> list[str]:
    """What a reader of times must know of the device: clocks held down, memory errors, or that
    neither could be seen.
    """
    if not spans:
        return []
    found = []
    if held := [span.throttled for span in spans if span.throttled]:
        found.append(
            f"the GPU's clocks were held down in {len(held)} of {len(spans)} blocks:"
            f" {', '.join(sorted({name for names in held for name in names}))}"
        )
    if unseen := spans[0].after.absent.get("throttle"):
        found.append(f"whether the GPU's clocks were held down is not known: {unseen}")
    for kind, count in ecc_growth(spans)._asdict().items():
        if count:
            found.append(
                f"{count} {kind} ECC errors of the GPU during the race"
                + ("; its results cannot be trusted" if kind == "uncorrected" else "")
            )
    return found


def summary(spans: Sequence[Span]) -> dict[str, float | int | str | None]:
    """What a result keeps of the device's states before and after its blocks; empty without any."""
    if not spans:
        return {}
    states = [state for span in spans for state in (span.before, span.after)]
    found: dict[str, float | int | str | None] = {}
    for name in ("sm_clock_hz", "memory_clock_hz", "temperature_c", "power_w"):
        if values := [value for state in states if (value := getattr(state, name)) is not None]:
            quantity, _, unit = name.rpartition("_")
            found |= {
                f"gpu_{quantity}_lowest_{unit}": min(values),
                f"gpu_{quantity}_highest_{unit}": max(values),
            }
    found["gpu_throttle"] = ", ".join(sorted({name for span in spans for name in span.throttled}))
    found |= {
        f"gpu_ecc_{kind}_new": count
        for kind, count in ecc_growth(spans)._asdict().items()
        if count is not None
    }
    if missing := {name: reason for state in states for name, reason in state.absent.items()}:
        found["gpu_absent"] = "; ".join(f"{name}: {reason}" for name, reason in sorted(missing.items()))
    return found
