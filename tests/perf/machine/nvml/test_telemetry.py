"""Telemetry: what a device says and what it does not, field by field; what a result keeps of it and
what it warns of.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from hotlap.perf.machine import memory, telemetry
from hotlap.perf.machine.telemetry import Span, State
from hotlap.perf.terms.reasons import Reason

from .scenarios import GIB, MIG, NORMAL, READ, SLICES, Ask, absent, state


def test_every_field_in_base_units(ask: Ask) -> None:
    assert state(ask(READ)) == State(
        total_bytes=80 * GIB,
        used_bytes=10 * GIB,
        free_bytes=70 * GIB,
        process_bytes=3 * GIB,
        process_source=telemetry.LISTS,
        sm_clock_hz=1_980_000_000,
        memory_clock_hz=2_619_000_000,
        throttle=(),
        power_w=350.5,
        energy_j=1234.5,
        gpu_utilisation=0.97,
        memory_utilisation=0.41,
        ecc_uncorrected=0,
        ecc_corrected=2,
        temperature_c=61,
        absent={},
    )


def test_a_function_that_has_gone_fails_loudly(
    child: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = child(READ, driver="old", check=False)
    assert (
        done.returncode == 9 and "the stand-in has no nvmlDeviceGetCurrentClocksEventReasons" in done.stderr
    )


def test_an_older_driver_is_asked_by_older_names(ask: Ask) -> None:
    missing = "nvmlDeviceGetCurrentClocksEventReasons nvmlDeviceGetTemperatureV"
    seen = state(ask(READ, {**NORMAL, "throttle": "0x4"}, driver="old", missing=missing))
    assert (seen.throttle, seen.temperature_c, seen.absent) == (("sw_power_cap",), 61, {})


ONE_FIELD = {
    "nvmlDeviceGetMemoryInfo": {"total_bytes", "used_bytes", "free_bytes"},
    "nvmlDeviceGetClockInfo": {"sm_clock_hz", "memory_clock_hz"},
    "nvmlDeviceGetCurrentClocksEventReasons": {"throttle"},
    "nvmlDeviceGetPowerUsage": {"power_w"},
    "nvmlDeviceGetTotalEnergyConsumption": {"energy_j"},
    "nvmlDeviceGetUtilizationRates": {"gpu_utilisation", "memory_utilisation"},
    "nvmlDeviceGetTotalEccErrors": {"ecc_uncorrected", "ecc_corrected"},
    "nvmlDeviceGetTemperatureV": {"temperature_c"},
}
ERRORS = {
    3: ("unsupported_target", "Not Supported"),
    4: ("no_device", "Insufficient Permissions"),
    13: ("dep_conflict", "Function Not Found"),
    999: ("no_device", "Unknown Error"),
}


@pytest.mark.parametrize("function", ONE_FIELD)
@pytest.mark.parametrize("error", ERRORS)
def test_what_is_not_supported_is_absent_with_a_reason_and_never_0(
    ask: Ask, function: str, error: int
) -> None:
    older = {
        "nvmlDeviceGetCurrentClocksThrottleReasons.error": error,
        "nvmlDeviceGetTemperature.error": error,
    }
    seen = state(ask(READ, {**NORMAL, f"{function}.error": error, **older}))
    assert (
        {name for name in State.__struct_fields__ if getattr(seen, name) is None}
        == seen.absent.keys()
        == ONE_FIELD[function]
    )
    code, text = ERRORS[error]
    for reason in seen.absent.values():
        assert reason.code == code and reason.detail.startswith("nvmlDeviceGet") and text in reason.detail


def test_a_lost_device_is_no_absent_field(ask: Ask) -> None:
    code = (
        "device = cuda_devices.open_device('cuda:0'); device.read(); scenario(**{'every.error': 15});"
        " reply(refused(device.read))"
    )
    reason = ask(code)
    assert reason["code"] == "crashed" and "GPU is lost" in reason["detail"] and "Xid" in reason["detail"]
    functions = [
        *ONE_FIELD,
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetGraphicsRunningProcesses_v3",
    ]
    code = (
        "device, reasons = cuda_devices.open_device('cuda:0'), []\n"
        f"for function in {functions!r}:\n"
        "    scenario(**{function + '.error': 15})\n"
        "    reasons.append(refused(device.read))\n"
        "    scenario(**{function + '.error': 0})\n"
        "reply(reasons)"
    )
    assert [reason.get("code") for reason in ask(code)] == ["crashed"] * len(functions)


def test_a_process_in_both_lists_is_not_counted_twice(ask: Ask) -> None:
    seen = state(ask(READ, {**NORMAL, "graphics": f"self:{2 * GIB}"}))
    assert (seen.process_bytes, seen.process_source) == (3 * GIB, telemetry.LISTS)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"compute": f"1:{GIB}"}, "hides process ids"),
        ({"compute": ""}, "hides process ids"),
        ({"compute": "self:none"}, "does not tell the memory of a process"),
        ({"nvmlDeviceGetComputeRunningProcesses_v3.error": 4}, "Insufficient Permissions"),
    ],
)
def test_hidden_processes_give_the_devices_growth_and_say_so(
    ask: Ask, change: dict[str, Any], why: str
) -> None:
    code = (
        f"device = cuda_devices.open_device('cuda:0'); scenario(used_bytes={11 * GIB}); reply(device.read())"
    )
    seen = state(ask(code, {**NORMAL, **change}))
    assert (
        seen.process_bytes == GIB
        and seen.process_source.startswith(telemetry.DELTA)
        and why in seen.process_source
    )


def test_without_lists_and_used_memory_there_is_no_memory_of_the_process(ask: Ask) -> None:
    seen = ask(READ, {**NORMAL, "compute": "", "nvmlDeviceGetMemoryInfo.error": 3})
    assert absent(seen) == dict.fromkeys(
        ("total_bytes", "used_bytes", "free_bytes", "process_bytes"), "unsupported_target"
    )


def test_throttle_reasons_by_name() -> None:
    pynvml = pytest.importorskip("pynvml")
    bits = [
        value
        for name, value in vars(pynvml).items()
        if re.match(r"nvmlClocks(Event|Throttle)Reason(?!All|None)", name)
    ]
    assert set(bits) == telemetry.THROTTLE_BITS.keys()
    assert all(
        telemetry.THROTTLE_BITS[getattr(pynvml, f"nvmlClocksEventReason{name}")] == words
        for name, words in (("GpuIdle", "gpu_idle"), ("HwSlowdown", "hw_slowdown"))
    )


def test_bits_that_have_no_name_yet_are_not_dropped(ask: Ask) -> None:
    assert state(ask(READ, {**NORMAL, "throttle": "0x100044"})).throttle == (
        "sw_power_cap",
        "hw_thermal_slowdown",
        "bit 0x100000",
    )


WINDOW = "device = cuda_devices.open_device('cuda:0'); reply(refused(lambda: device.window({work}, {cap_s})))"


def test_energy_over_a_hundred_updates(ask: Ask) -> None:
    """50 mJ every third reading, one reading a call."""
    window = ask(WINDOW.format(work="lambda: None", cap_s=30))["answered"]
    assert (window["energy_j"], window["calls"], window["updates"]) == (
        pytest.approx(5.0),
        300,
        100,
    ) and window["length_s"] > 0


def test_a_window_of_too_few_updates_gives_no_energy(ask: Ask) -> None:
    reason = ask(WINDOW.format(work="lambda: time.sleep(0.005)", cap_s=0.3))
    assert reason["code"] == "timeout" and re.search(
        r"^\d\d? updates of the energy counter .* raise --budget \d+\.\d times", reason["detail"]
    )


def test_a_window_ends_at_its_cap_before_the_first_updates_too(ask: Ask) -> None:
    reason = ask(WINDOW.format(work="lambda: time.sleep(0.01)", cap_s=0.1), {**NORMAL, "energy_every": 1000})
    assert reason["code"] == "timeout" and reason["detail"].startswith("0 updates")


def test_a_counter_that_stands_still_is_named(ask: Ask) -> None:
    reason = ask(
        "telemetry.STANDS_STILL_S = 0.1; " + WINDOW.format(work="lambda: None", cap_s=30),
        {**NORMAL, "energy_step_mj": 0},
    )
    assert reason["code"] == "unsupported_target" and "stood still" in reason["detail"]


def test_a_counter_that_went_back_gives_no_energy(ask: Ask) -> None:
    reason = ask(WINDOW.format(work="lambda: scenario(energy_mj=7)", cap_s=30))
    assert reason["code"] == "not_steady" and "went back" in reason["detail"]


METER = "from hotlap.perf.machine.power import Meter; reply(refused(lambda: Meter('cuda:0').read()))"


def test_a_meter_reads_joules_or_says_why_not(ask: Ask) -> None:
    assert ask(METER, {**NORMAL, "energy_step_mj": 0})["answered"] == [1234.5]
    assert (
        ask(METER, {**NORMAL, "nvmlDeviceGetTotalEnergyConsumption.error": 3})["code"] == "unsupported_target"
    )
    assert ask(METER, CUDA_VISIBLE_DEVICES="")["code"] == "no_device"


def test_the_environment_names_gpus_and_slices(ask: Ask) -> None:
    code = "from hotlap.perf.machine.survey import _gpus; reply(_gpus())"
    assert ask(code, MIG) == [
        ["NVIDIA Stand-in 80GB", "NVIDIA Stand-in MIG 1g.10gb", "NVIDIA Stand-in MIG 2g.20gb"],
        "580.95.05",
    ]
    assert ask(code, {**NORMAL, "nvmlInitWithFlags.error": 9}) == [[], ""]
    for error, text in ((15, "GPU is lost"), (4, "Insufficient Permissions")):
        (named,), driver = ask(code, {**NORMAL, "nvmlDeviceGetUUID.error": error})
        assert text in named and driver == "580.95.05"


def test_memory_of_the_process_is_named_by_its_source(ask: Ask) -> None:
    device = "cuda_devices.open_device('cuda:0')"
    code = f"from hotlap.perf.machine import memory; reply(memory.gpu_bytes('cuda:0', {device}))"
    assert ask(code) == {"nvml_process": 3 * GIB}
    assert ask(code, {**NORMAL, "compute": ""}) == {"nvml_device_delta": 0}
    assert ask(code, {**NORMAL, "compute": "", "nvmlDeviceGetMemoryInfo.error": 3}) == {}
    assert not [name for name in memory.gpu_bytes("cuda:0") if name.startswith("nvml")]


def test_doctor_shows_each_device(child: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    code = (
        "from rich.console import Console; from hotlap.perf.commands import machine_tables;"
        " Console(width=240).print(machine_tables.devices())"
    )
    lines = child(
        code, {**MIG, "0.throttle": "0x24"}, CUDA_VISIBLE_DEVICES=f"{SLICES[1]}"
    ).stdout.splitlines()
    assert re.search(
        r"Stand-in 80GB +- +10.0 GiB +80.0 GiB +1.98 GHz +2.62 GHz +3\d\d W +61 °C +sw_power_cap,"
        r" sw_thermal_slowdown +0 uncorrected, 2 corrected +off",
        lines[1],
    )
    assert re.search(r"MIG 2g.20gb +cuda:0 +2.00 GiB +20.0 GiB +- +- +- +- +- +- +slice", lines[4])
    below = " ".join(lines[5:])
    assert re.match(
        r"NVIDIA Stand-in MIG 1g.10gb, NVIDIA Stand-in MIG 2g.20gb: no sm_clock_hz, memory_clock_hz,"
        r" throttle, power_w, .*: Not Supported; NVML does not",
        below,
    )


def span(
    before: Mapping[str, Any] = {}, after: Mapping[str, Any] = {}, throttle: tuple[str, ...] = ()
) -> Span:
    fine: dict[str, Any] = {
        "throttle": (),
        "ecc_uncorrected": 0,
        "ecc_corrected": 2,
        "sm_clock_hz": 1_980_000_000,
    }
    return Span(State(**{**fine, **before}), State(**{**fine, **after}), throttle)


def test_nothing_to_warn_of() -> None:
    assert telemetry.warnings([]) == [] and telemetry.summary([]) == {}
    assert (
        telemetry.warnings(
            [
                span(throttle=("gpu_idle", "applications_clocks_setting")),
                span(after={"throttle": ("gpu_idle",)}),
            ]
        )
        == []
    )


def test_clocks_held_down_in_any_turn_are_a_warning() -> None:
    held = [span(), span(throttle=("sw_power_cap",)), span(after={"throttle": ("hw_slowdown", "gpu_idle")})]
    assert telemetry.warnings(held) == [
        "the GPU's clocks were held down in 2 of 3 blocks: hw_slowdown, sw_power_cap"
    ]
    unseen = Reason("unsupported_target", "why")
    blind = span(after={"throttle": None, "absent": {"throttle": unseen}})
    assert telemetry.warnings([blind]) == [
        "whether the GPU's clocks were held down is not known: unsupported_target: why"
    ]


def test_ecc_errors_that_grew_are_a_warning() -> None:
    grew = telemetry.warnings([span(), span(after={"ecc_uncorrected": 1, "ecc_corrected": 5})])
    assert grew == [
        "1 uncorrected ECC errors of the GPU during the race; its results cannot be trusted",
        "3 corrected ECC errors of the GPU during the race",
    ]
    assert telemetry.ecc_growth([span(before={"ecc_corrected": 9}, after={"ecc_corrected": 1})]) == (0, 1)
    assert telemetry.ecc_growth([span(after={"ecc_corrected": None})]) == (0, None)


def test_what_a_result_keeps_of_the_device() -> None:
    unseen = Reason("unsupported_target", "why")
    summary = telemetry.summary(
        [
            span(
                after={"sm_clock_hz": 1_500_000_000, "absent": {"power_w": unseen}},
                throttle=("sw_power_cap",),
            )
        ]
    )
    assert summary == {
        "gpu_sm_clock_lowest_hz": 1_500_000_000,
        "gpu_sm_clock_highest_hz": 1_980_000_000,
        "gpu_throttle": "sw_power_cap",
        "gpu_ecc_uncorrected_new": 0,
        "gpu_ecc_corrected_new": 0,
        "gpu_absent": "power_w: unsupported_target: why",
    }
