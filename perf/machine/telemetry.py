"""Reads what an NVIDIA device says of itself, by NVML (nvidia-ml-py): memory, clocks and what holds
them down, power, energy, load, ECC errors, temperature.

A device may be a MIG slice (which one CUDA means: cuda_devices.py). What a device does not support
is absent with a reason, never 0. Nothing is asked of NVML at import. In tests, where no device is,
tests/perf/machine/nvml/standin.c answers in its place, in a child process.
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
# Updates after which it can be said how long all of them will take.
FIRST_UPDATES = 5
# Seconds without an update after which the counter stands still.
STANDS_STILL_S = 2.0
# The two sources of a process's memory, in words that a result keeps.
LISTS = "the process lists of NVML"
DELTA = "what the device's used memory grew by since this process opened it, other processes included"


class State(msgspec.Struct, frozen=True):
    """A device at one moment. A field that is None stands in `absent` with its reason."""

    # The device's memory, B.
    total_bytes: int | None = None
    # Memory in use, with what the driver reserves, B.
    used_bytes: int | None = None
    # Memory that is left, B.
    free_bytes: int | None = None
    # Memory of this process, B.
    process_bytes: int | None = None
    # By what that is known: LISTS, or DELTA and why.
    process_source: str = ""
    # Clock of the multiprocessors, Hz.
    sm_clock_hz: int | None = None
    # Clock of the memory, Hz.
    memory_clock_hz: int | None = None
    # Names of what holds the clocks; () for nothing.
    throttle: tuple[str, ...] | None = None
    # Power drawn, W.
    power_w: float | None = None
    # Energy since the driver was loaded, J.
    energy_j: float | None = None
    # Share (0 to 1) of the driver's last sampling period in which a kernel ran.
    gpu_utilisation: float | None = None
    # Share (0 to 1) of that period in which memory was moved.
    memory_utilisation: float | None = None
    # ECC errors since the driver was loaded (volatile) that were not corrected.
    ecc_uncorrected: int | None = None
    # The same of those that were corrected.
    ecc_corrected: int | None = None
    # Temperature, degrees Celsius.
    temperature_c: int | None = None
    # Field -> why it is None.
    absent: dict[str, Reason] = {}


class Span(msgspec.Struct, frozen=True):
    """A device before and after a block."""

    before: State
    after: State
    # What held its clocks at the end of any turn.
    throttle: tuple[str, ...] = ()

    @property
    def throttled(self) -> tuple[str, ...]:
        """What held its clocks at any of these moments, without the harmless, sorted."""
        seen = {*self.throttle, *(self.before.throttle or ()), *(self.after.throttle or ())}
        return tuple(sorted(seen - set(HARMLESS)))


class Window(msgspec.Struct, frozen=True):
    """Energy of some calls, from one update of the counter to a later one."""

    energy_j: float
    # Calls between the two updates.
    calls: int
    # Updates after the first.
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
        """Calls a function of NVML on this device.

        Raises Refusal where the device or this function does not answer; crashed where the device
        is lost, and nothing else of it can be trusted.
        """
        try:
            return getattr(self.nvml, function)(self.handle, *arguments)
        except self.nvml.NVMLError as error:
            raise refusal(self.nvml, error, function, self.parent is not None) from error

    @property
    def architecture(self) -> str:
        """The compute capability, written sm_90. Raises Refusal."""
        return "sm_{}{}".format(*self.ask("nvmlDeviceGetCudaComputeCapability"))

    def mig(self) -> list[Device]:
        """Returns the slices of this GPU; none where MIG is off or unknown to it.

        Raises Refusal(crashed).
        """
        nvml, slices = self.nvml, []
        try:
            if self.ask("nvmlDeviceGetMigMode")[0] != nvml.NVML_DEVICE_MIG_ENABLE:
                return []
            most = self.ask("nvmlDeviceGetMaxMigDeviceCount")
        except Refusal as without:
            if without.reason.code == "crashed":
                raise
            return []
        for index in range(most):
            try:
                handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(self.handle, index)
            except nvml.NVMLError as error:
                if error.value in (nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_ERROR_NO_PERMISSION):
                    continue  # an index without a slice, or with one that this container may not see
                raise refusal(nvml, error, "nvmlDeviceGetMigDeviceHandleByIndex", False) from error
            slices.append(Device(nvml, handle, self))
        return slices

    def mig_mode(self) -> str:
        """Returns the mode in words: off, on, `off, on after a reset` and the reverse; of a slice
        its GPU; where there is no answer, why. Raises Refusal(crashed).
        """
        if self.parent is not None:
            return f"slice of {self.parent.uuid}"
        try:
            current, pending = self.ask("nvmlDeviceGetMigMode")
        except Refusal as refused:
            if refused.reason.code == "crashed":
                raise
            if refused.reason.code == "unsupported_target":
                return "not supported"
            return f"unknown: {refused.reason.detail}"
        words = ("off", "on")
        return words[current] if current == pending else f"{words[current]}, {words[pending]} after a reset"

    def read(self) -> State:
        """Returns all that the device tells now. Raises Refusal(crashed) where it is lost."""
        fields: dict[str, Any] = {}
        absent: dict[str, Reason] = {}
        for names, read in READINGS:
            try:
                fields.update(zip(names, read(self), strict=True))
            except Refusal as refused:
                if refused.reason.code == "crashed":
                    raise
                absent.update(dict.fromkeys(names, refused.reason))
        try:
            fields["process_bytes"], fields["process_source"] = self.process(fields.get("used_bytes"))
        except Refusal as refused:
            if refused.reason.code == "crashed":
                raise
            absent["process_bytes"] = refused.reason
        return State(**fields, absent=absent)

    def process(self, used_bytes: int | None) -> tuple[int, str]:
        """Returns the memory of this process in bytes, and by which source.

        A process that draws and computes is in both lists with all of its memory: the larger
        counts. Containers may hide process ids, and drivers the memory of each. Raises Refusal
        where there is nothing to go by.
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
        """Returns what holds the clocks by name, unknown bits by number. Raises Refusal."""
        functions = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
        mask = int(self.newest(functions))
        known = [name for bit, name in THROTTLE_BITS.items() if mask & bit]
        rest = [bit for bit in (1 << shift for shift in range(64)) if mask & bit and bit not in THROTTLE_BITS]
        return (*known, *(f"bit {bit:#x}" for bit in rest))

    def newest(self, functions: Sequence[str], *arguments: Any) -> Any:
        """Returns the answer of the first function that both nvidia-ml-py and the driver have.

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
        """Returns the energy since the driver was loaded, J. Raises Refusal."""
        return float(self.ask("nvmlDeviceGetTotalEnergyConsumption")) / 1e3

    def window(self, work: Callable[[], None], cap_s: float) -> Window:
        """Calls `work` (which ends when the device has finished) until the energy counter was
        updated LEAST_UPDATES times.

        Both ends lie at an update. Raises Refusal where that would take longer than cap_s, where
        the counter stands still or goes back, or is not there.
        """
        begun = time.perf_counter()
        last = start = self.energy_j()
        start_s = begun
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
                    start, start_s, calls = counter, now, 0
            elif updates <= 0 and calls > 1 and now - start_s >= STANDS_STILL_S:
                raise Refusal(
                    "unsupported_target",
                    f"the energy counter stood still for {now - start_s:.1f} s and {calls} calls",
                )
            if updates >= LEAST_UPDATES:
                return Window(counter - start, calls, updates, now - start_s)
            needed_s = (now - start_s) * LEAST_UPDATES / updates if updates > 0 else 0.0
            if now - begun >= cap_s or (updates >= FIRST_UPDATES and needed_s > cap_s):
                raise _too_slow(max(0, updates), now - begun, cap_s, needed_s)


def _too_slow(updates: int, elapsed_s: float, cap_s: float, needed_s: float) -> Refusal:
    """Returns the refusal of a window that is longer than its cap; needed_s: 0 where not known."""
    detail = (
        f"{updates} updates of the energy counter in {elapsed_s:.2f} s of the {cap_s:.2f} s that the budget"
        " leaves for it"
    )
    if needed_s:
        times = needed_s / cap_s
        detail += f"; {LEAST_UPDATES} take about {needed_s:.1f} s: raise --budget {times:.1f} times"
    return Refusal("timeout", detail)


# Names of fields of State, and what reads them.
Reading = tuple[tuple[str, ...], Callable[[Device], tuple[Any, ...]]]


def _memory(device: Device) -> tuple[int, int, int]:
    memory = device.ask("nvmlDeviceGetMemoryInfo")
    return memory.total, memory.used, memory.free


def _utilisation(device: Device) -> tuple[float, float]:
    rates = device.ask("nvmlDeviceGetUtilizationRates")
    return rates.gpu / 100, rates.memory / 100


def _ecc(kind: str) -> Callable[[Device], tuple[int]]:
    """Returns what reads the errors of a kind (CORRECTED, UNCORRECTED) since the driver's load."""

    def read(device: Device) -> tuple[int]:
        kind_of_nvml = getattr(device.nvml, f"NVML_MEMORY_ERROR_TYPE_{kind}")
        return (device.ask("nvmlDeviceGetTotalEccErrors", kind_of_nvml, device.nvml.NVML_VOLATILE_ECC),)

    return read


def _clock_hz(domain: str) -> Callable[[Device], tuple[int]]:
    """Returns what reads the clock of a domain (SM, MEM); NVML gives MHz."""

    def read(device: Device) -> tuple[int]:
        mhz = device.ask("nvmlDeviceGetClockInfo", getattr(device.nvml, f"NVML_CLOCK_{domain}"))
        return (mhz * 1_000_000,)

    return read


def _temperature(device: Device) -> tuple[int]:
    functions = ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature")
    return (device.newest(functions, device.nvml.NVML_TEMPERATURE_GPU),)


READINGS: tuple[Reading, ...] = (
    (("total_bytes", "used_bytes", "free_bytes"), _memory),
    (("sm_clock_hz",), _clock_hz("SM")),
    (("memory_clock_hz",), _clock_hz("MEM")),
    (("throttle",), lambda device: (device.throttle(),)),
    (("power_w",), lambda device: (device.ask("nvmlDeviceGetPowerUsage") / 1e3,)),
    (("energy_j",), lambda device: (device.energy_j(),)),
    (("gpu_utilisation", "memory_utilisation"), _utilisation),
    (("ecc_uncorrected",), _ecc("UNCORRECTED")),
    (("ecc_corrected",), _ecc("CORRECTED")),
    (("temperature_c",), _temperature),
)


def refusal(nvml: Any, error: Any, function: str, on_slice: bool) -> Refusal:
    """Turns an error of NVML into a refusal: crashed only where device or driver are gone."""
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
    """Returns the ECC errors that the device counted during the blocks."""
    first, last = spans[0].before, spans[-1].after
    return Growth(
        uncorrected=_grown(first.ecc_uncorrected, last.ecc_uncorrected),
        corrected=_grown(first.ecc_corrected, last.ecc_corrected),
    )


def _grown(before: int | None, after: int | None) -> int | None:
    """Returns by how much a counter grew; one that fell was set to 0 in between, so that at least
    what stands now is new. None where it is not known.
    """
    if before is None or after is None:
        return None
    return after - before if after >= before else after


def warnings(spans: Sequence[Span]) -> list[str]:
    """Returns what a reader of times must know of the device: clocks held down, memory errors, or
    that neither could be seen.
    """
    if not spans:
        return []
    lines = []
    if held := [span.throttled for span in spans if span.throttled]:
        lines.append(
            f"the GPU's clocks were held down in {len(held)} of {len(spans)} blocks:"
            f" {', '.join(sorted({name for names in held for name in names}))}"
        )
    if unseen := spans[0].after.absent.get("throttle"):
        lines.append(f"whether the GPU's clocks were held down is not known: {unseen}")
    for kind, count in ecc_growth(spans)._asdict().items():
        if count:
            lines.append(
                f"{count} {kind} ECC errors of the GPU during the race"
                + ("; its results cannot be trusted" if kind == "uncorrected" else "")
            )
    return lines


def summary(spans: Sequence[Span]) -> dict[str, float | int | str | None]:
    """Returns what a result keeps of the states around its blocks, by name; empty without any."""
    if not spans:
        return {}
    states = [state for span in spans for state in (span.before, span.after)]
    details: dict[str, float | int | str | None] = {}
    for name in ("sm_clock_hz", "memory_clock_hz", "temperature_c", "power_w"):
        if values := [value for state in states if (value := getattr(state, name)) is not None]:
            quantity, _, unit = name.rpartition("_")
            details |= {
                f"gpu_{quantity}_lowest_{unit}": min(values),
                f"gpu_{quantity}_highest_{unit}": max(values),
            }
    details["gpu_throttle"] = ", ".join(sorted({name for span in spans for name in span.throttled}))
    details |= {
        f"gpu_ecc_{kind}_new": count
        for kind, count in ecc_growth(spans)._asdict().items()
        if count is not None
    }
    if missing := {name: reason for state in states for name, reason in state.absent.items()}:
        details["gpu_absent"] = "; ".join(f"{name}: {reason}" for name, reason in sorted(missing.items()))
    return details
