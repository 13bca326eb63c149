"""Telemetry on a stand-in NVML (rung L6): what a device says, what it does not, and which device it is. No figure here is of a real device.

The stand-in (standin/nvml.c) is compiled here and loaded in child processes only. A function that nvidia-ml-py asks for and the stand-in has not ends the child,
so a new version of one cannot pass as an old driver.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hotlap.perf import memory, telemetry
from hotlap.perf.reasons import Reason
from hotlap.perf.telemetry import Span, State

SOURCE = Path(__file__).parent / "standin" / "nvml.c"
COMPILER = shutil.which("gcc") or shutil.which("cc")
GIB = 2**30
UUIDS = ("GPU-11111111-aaaa-0000-0000-000000000000", "GPU-22222222-bbbb-0000-0000-000000000000")
SLICES = ("MIG-aaaaaaaa-0000-0000-0000-000000000000", "MIG-bbbbbbbb-0000-0000-0000-000000000000")
NORMAL = {
    "driver": "580.95.05", "gpus": 1, "name": "NVIDIA Stand-in 80GB", "0.uuid": UUIDS[0], "1.uuid": UUIDS[1],
    "total_bytes": 80 * GIB, "used_bytes": 10 * GIB, "compute": f"self:{3 * GIB},1:{5 * GIB}",
    "sm_mhz": 1980, "memory_mhz": 2619, "throttle": "0x0", "power_mw": 350500, "energy_mj": 1_234_500, "energy_step_mj": 50, "energy_every": 3,
    "gpu_percent": 97, "memory_percent": 41, "ecc_uncorrected": 0, "ecc_corrected": 2, "celsius": 61,
}  # fmt: skip
TWO = {**NORMAL, "gpus": 2, "1.celsius": 33}
MIG = {
    **TWO, "name": "NVIDIA Stand-in 80GB", "1.mig": 1, "1.mig_pending": 1, "1.slice0": 1, "1.slice2": 1,
    "1/0.uuid": SLICES[0], "1/2.uuid": SLICES[1], "1/0.name": "NVIDIA Stand-in MIG 1g.10gb", "1/2.name": "NVIDIA Stand-in MIG 2g.20gb",
    "1/0.total_bytes": 10 * GIB, "1/2.total_bytes": 20 * GIB, "1/0.used_bytes": 1 * GIB, "1/2.used_bytes": 2 * GIB, "1/0.gpu_instance": 7, "1/2.gpu_instance": 3,
}  # fmt: skip
PREAMBLE = """
import json, os, sys, time
import msgspec, pynvml
from hotlap.perf import cuda_devices, telemetry
from hotlap.perf.reasons import Refusal

ask = pynvml._nvmlGetFunctionPointer
def loud(name):
    try:
        return ask(name)
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_FUNCTION_NOT_FOUND and name not in os.environ["HOTLAP_MISSING"].split():
            sys.stderr.write(f"the stand-in has no {name}\\n")
            sys.stderr.flush()
            os._exit(9)
        raise
pynvml._nvmlGetFunctionPointer = loud

def scenario(**changes):
    path = os.environ["HOTLAP_STANDIN_NVML"]
    lines = [f"{name} {value}" for name, value in changes.items()]
    with open(path + ".new", "w") as file:  # the first line of a name counts
        file.write("\\n".join(lines + [open(path).read()]))
    os.replace(path + ".new", path)

def told(value):
    print(json.dumps(msgspec.to_builtins(value)))

def refused(call):
    try:
        return {"answered": msgspec.to_builtins(call())}
    except Refusal as refusal:
        return msgspec.to_builtins(refusal.reason)
"""
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler (gcc or cc) to build the stand-in NVML with")
Ask = Callable[..., Any]


def build(folder: Path, *flags: str) -> Path:
    folder.mkdir(exist_ok=True)
    subprocess.run([str(COMPILER), "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", *flags, str(SOURCE), "-o", str(folder / "libnvidia-ml.so.1")], check=True)
    return folder


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folder of the library by kind of driver."""
    top = tmp_path_factory.mktemp("nvml")
    return {"new": build(top / "new"), "old": build(top / "old", "-DOLD_DRIVER")}


@pytest.fixture
def child(drivers: dict[str, Path], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(code: str, scenario: Mapping[str, Any] = NORMAL, driver: str = "new", missing: str = "", check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "scenario.txt"
        file.write_text("".join(f"{name} {value}\n" for name, value in scenario.items()))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
        given = {**inherited, "LD_LIBRARY_PATH": str(drivers[driver]), "HOTLAP_STANDIN_NVML": str(file), "HOTLAP_MISSING": missing, **environment}
        done = subprocess.run([sys.executable, "-c", PREAMBLE + code], env=given, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0 or not check, done.stderr
        return done

    return run


@pytest.fixture
def ask(child: Callable[..., subprocess.CompletedProcess[str]]) -> Ask:
    """What a child prints as JSON."""
    return lambda *arguments, **named: json.loads(child(*arguments, **named).stdout)


# Calls that a worker makes until its first turn: it opens the device twice (itself, its meter) and reads it.
ASKED_UNTIL_TURNS = 24
READ = "told(cuda_devices.open_device('cuda:0').read())"


def state(answered: Any) -> State:
    return msgspec.convert(answered, State)


def absent(answered: Any) -> dict[str, str]:
    return {name: reason.code for name, reason in state(answered).absent.items()}


def test_every_field_in_base_units(ask: Ask) -> None:
    assert state(ask(READ)) == State(
        total_bytes=80 * GIB, used_bytes=10 * GIB, free_bytes=70 * GIB, process_bytes=3 * GIB, process_source=telemetry.LISTS,
        sm_clock_hz=1_980_000_000, memory_clock_hz=2_619_000_000, throttle=(), power_w=350.5, energy_j=1234.5, gpu_utilisation=0.97, memory_utilisation=0.41,
        ecc_uncorrected=0, ecc_corrected=2, temperature_c=61, absent={},
    )  # fmt: skip


def test_a_function_that_has_gone_fails_loudly(child: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = child(READ, driver="old", check=False)
    assert done.returncode == 9 and "the stand-in has no nvmlDeviceGetCurrentClocksEventReasons" in done.stderr


def test_an_older_driver_is_asked_by_older_names(ask: Ask) -> None:
    missing = "nvmlDeviceGetCurrentClocksEventReasons nvmlDeviceGetTemperatureV"
    found = state(ask(READ, {**NORMAL, "throttle": "0x4"}, driver="old", missing=missing))
    assert (found.throttle, found.temperature_c, found.absent) == (("sw_power_cap",), 61, {})


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
ERRORS = {3: ("unsupported_target", "Not Supported"), 4: ("no_device", "Insufficient Permissions"), 13: ("dep_conflict", "Function Not Found"), 999: ("no_device", "Unknown Error")}


@pytest.mark.parametrize("function", ONE_FIELD)
@pytest.mark.parametrize("error", ERRORS)
def test_what_is_not_supported_is_absent_with_a_reason_and_never_0(ask: Ask, function: str, error: int) -> None:
    older = {"nvmlDeviceGetCurrentClocksThrottleReasons.error": error, "nvmlDeviceGetTemperature.error": error}
    found = state(ask(READ, {**NORMAL, f"{function}.error": error, **older}))
    assert {name for name in State.__struct_fields__ if getattr(found, name) is None} == found.absent.keys() == ONE_FIELD[function]
    code, text = ERRORS[error]
    for reason in found.absent.values():
        assert reason.code == code and reason.detail.startswith("nvmlDeviceGet") and text in reason.detail


def test_a_lost_device_is_no_absent_field(ask: Ask) -> None:
    code = "device = cuda_devices.open_device('cuda:0'); device.read(); scenario(**{'every.error': 15}); told(refused(device.read))"
    found = ask(code)
    assert found["code"] == "crashed" and "GPU is lost" in found["detail"] and "Xid" in found["detail"]
    functions = [*ONE_FIELD, "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v3"]
    code = (
        "device, found = cuda_devices.open_device('cuda:0'), []\n"
        f"for function in {functions!r}:\n"
        "    scenario(**{function + '.error': 15})\n"
        "    found.append(refused(device.read))\n"
        "    scenario(**{function + '.error': 0})\n"
        "told(found)"
    )
    assert [one.get("code") for one in ask(code)] == ["crashed"] * len(functions)


def test_a_process_in_both_lists_is_not_counted_twice(ask: Ask) -> None:
    found = state(ask(READ, {**NORMAL, "graphics": f"self:{2 * GIB}"}))
    assert (found.process_bytes, found.process_source) == (3 * GIB, telemetry.LISTS)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"compute": f"1:{GIB}"}, "hides process ids"),
        ({"compute": ""}, "hides process ids"),
        ({"compute": "self:none"}, "does not tell the memory of a process"),
        ({"nvmlDeviceGetComputeRunningProcesses_v3.error": 4}, "Insufficient Permissions"),
    ],
)
def test_hidden_processes_give_the_devices_growth_and_say_so(ask: Ask, change: dict[str, Any], why: str) -> None:
    code = f"device = cuda_devices.open_device('cuda:0'); scenario(used_bytes={11 * GIB}); told(device.read())"
    found = state(ask(code, {**NORMAL, **change}))
    assert found.process_bytes == GIB and found.process_source.startswith(telemetry.DELTA) and why in found.process_source


def test_without_lists_and_used_memory_there_is_no_memory_of_the_process(ask: Ask) -> None:
    found = ask(READ, {**NORMAL, "compute": "", "nvmlDeviceGetMemoryInfo.error": 3})
    assert absent(found) == dict.fromkeys(("total_bytes", "used_bytes", "free_bytes", "process_bytes"), "unsupported_target")


def test_throttle_reasons_by_name() -> None:
    pynvml = pytest.importorskip("pynvml")
    bits = [value for name, value in vars(pynvml).items() if re.match(r"nvmlClocks(Event|Throttle)Reason(?!All|None)", name)]
    assert set(bits) == telemetry.THROTTLE_BITS.keys()
    assert all(telemetry.THROTTLE_BITS[getattr(pynvml, f"nvmlClocksEventReason{name}")] == words for name, words in (("GpuIdle", "gpu_idle"), ("HwSlowdown", "hw_slowdown")))


def test_bits_that_have_no_name_yet_are_not_dropped(ask: Ask) -> None:
    assert state(ask(READ, {**NORMAL, "throttle": "0x100044"})).throttle == ("sw_power_cap", "hw_thermal_slowdown", "bit 0x100000")


WINDOW = "device = cuda_devices.open_device('cuda:0'); told(refused(lambda: device.window({work}, {cap_s})))"


def test_energy_over_a_hundred_updates(ask: Ask) -> None:
    """50 mJ every third reading, one reading a call."""
    found = ask(WINDOW.format(work="lambda: None", cap_s=30))["answered"]
    assert (found["energy_j"], found["calls"], found["updates"]) == (pytest.approx(5.0), 300, 100) and found["length_s"] > 0


def test_a_window_of_too_few_updates_gives_no_energy(ask: Ask) -> None:
    found = ask(WINDOW.format(work="lambda: time.sleep(0.005)", cap_s=0.3))
    assert found["code"] == "timeout" and re.search(r"^\d\d? updates of the energy counter .* raise --budget \d+\.\d times", found["detail"])


def test_a_window_ends_at_its_cap_before_the_first_updates_too(ask: Ask) -> None:
    found = ask(WINDOW.format(work="lambda: time.sleep(0.01)", cap_s=0.1), {**NORMAL, "energy_every": 1000})
    assert found["code"] == "timeout" and found["detail"].startswith("0 updates")


def test_a_counter_that_stands_still_is_named(ask: Ask) -> None:
    found = ask("telemetry.STANDS_STILL_S = 0.1; " + WINDOW.format(work="lambda: None", cap_s=30), {**NORMAL, "energy_step_mj": 0})
    assert found["code"] == "unsupported_target" and "stood still" in found["detail"]


def test_a_counter_that_went_back_gives_no_energy(ask: Ask) -> None:
    found = ask(WINDOW.format(work="lambda: scenario(energy_mj=7)", cap_s=30))
    assert found["code"] == "not_steady" and "went back" in found["detail"]


METER = "from hotlap.perf.power import Meter; told(refused(lambda: Meter('cuda:0').read()))"


def test_a_meter_reads_joules_or_says_why_not(ask: Ask) -> None:
    assert ask(METER, {**NORMAL, "energy_step_mj": 0})["answered"] == [1234.5]
    assert ask(METER, {**NORMAL, "nvmlDeviceGetTotalEnergyConsumption.error": 3})["code"] == "unsupported_target"
    assert ask(METER, CUDA_VISIBLE_DEVICES="")["code"] == "no_device"


def seen_by_cuda(ask: Ask, scenario: Mapping[str, Any], visible: str | None, **environment: str) -> Any:
    given = environment if visible is None else {**environment, "CUDA_VISIBLE_DEVICES": visible}
    return ask("told(refused(lambda: [device.uuid for device in cuda_devices.visible(cuda_devices.gpus(), os.environ)]))", scenario, **given)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [0, 1]),
        ("", []),
        ("1", [1]),
        ("1,0", [1, 0]),
        (" 1 , 0", [1, 0]),
        ("0,-1,1", [0]),
        ("0,7,1", [0]),
        ("0,0", []),
        ("1gpu,0", [1, 0]),
        ("none", []),
        (UUIDS[1], [1]),
        (f"{UUIDS[1]},{UUIDS[0]}", [1, 0]),
        ("GPU-2", [1]),
        ("GPU-", []),
        ("GPU-2,GPU-22", []),
        ("GPU-3,GPU-2", []),
        ("GPU-2,0", [1]),
    ],
)
def test_cuda_visible_devices(ask: Ask, visible: str | None, expected: list[int]) -> None:
    assert seen_by_cuda(ask, TWO, visible)["answered"] == [UUIDS[index] for index in expected]


def test_torch_reads_cuda_visible_devices_the_same_way(ask: Ask) -> None:
    """torch's own parser and our own, on the same stand-in."""
    code = (
        "import torch\n"
        "def torchs(value):\n"
        "    os.environ['CUDA_VISIBLE_DEVICES'] = value\n"
        "    found = torch.cuda._parse_visible_devices()\n"
        f"    found = torch.cuda._transform_uuid_to_ordinals(found, {list(UUIDS)!r}) if found and isinstance(found[0], str) else found\n"
        f"    return [{list(UUIDS)!r}[at] for at in found[:next((at for at, index in enumerate(found) if index > 1), None)]]\n"
        "def ours(value): return [device.uuid for device in cuda_devices.visible(gpus, {'CUDA_VISIBLE_DEVICES': value})]\n"
        "gpus = cuda_devices.gpus()\n"
        "values = ['', '0', '1', '1,0', '0,1', '0,-1,1', '-0', '+1', '0,0', '0,9,1', '1gpu,0', 'x', '1,x,0']\n"
        "values += ['GPU-1', 'GPU-2,GPU-1', 'GPU-1,GPU-11', 'GPU-', 'GPU-1,0', '0,GPU-1', 'GPU-7,GPU-1']\n"
        "told([[value, torchs(value), ours(value)] for value in values])"
    )
    for value, torchs, ours in ask(code, TWO):
        assert ours == torchs, value


def test_another_index_is_another_device(ask: Ask) -> None:
    assert state(ask("told(cuda_devices.open_device('cuda:1').read())", TWO)).temperature_c == 33
    assert state(ask(READ, TWO, CUDA_VISIBLE_DEVICES="1")).temperature_c == 33
    found = ask("told(refused(lambda: cuda_devices.open_device('cuda:1').read()))", TWO, CUDA_VISIBLE_DEVICES="1")
    assert found == {"code": "no_device", "detail": "cuda:1: CUDA sees 1 device(s) here (CUDA_VISIBLE_DEVICES=1)"}


def test_gpus_of_different_kinds_are_not_guessed(ask: Ask) -> None:
    mixed = {"1.name": "NVIDIA Another", **TWO}
    assert seen_by_cuda(ask, mixed, None)["code"] == "unsupported_target"
    assert seen_by_cuda(ask, mixed, None, CUDA_DEVICE_ORDER="PCI_BUS_ID")["answered"] == list(UUIDS)
    assert seen_by_cuda(ask, mixed, UUIDS[1])["answered"] == [UUIDS[1]]


def test_a_gpu_that_a_cgroup_hides_is_not_counted(ask: Ask) -> None:
    assert seen_by_cuda(ask, {**TWO, "0.nvmlDeviceGetHandleByIndex_v2.error": 4}, None)["answered"] == [UUIDS[1]]


@pytest.mark.parametrize("visible", [SLICES[1], "MIG-bb", f"MIG-{UUIDS[1]}/3/0"])
def test_a_slice_is_read_as_a_slice(ask: Ask, visible: str) -> None:
    found = ask(READ, MIG, CUDA_VISIBLE_DEVICES=visible)
    assert (state(found).total_bytes, state(found).used_bytes, state(found).process_bytes) == (20 * GIB, 2 * GIB, 3 * GIB)
    whole = ("sm_clock_hz", "memory_clock_hz", "throttle", "power_w", "energy_j", "gpu_utilisation", "memory_utilisation", "ecc_uncorrected", "ecc_corrected", "temperature_c")
    assert absent(found) == dict.fromkeys(whole, "unsupported_target")
    assert all("on a MIG slice" in reason.detail for reason in state(found).absent.values())


def test_the_mode_of_a_device(ask: Ask) -> None:
    code = "told([[part.mig_mode() for part in (gpu, *gpu.mig())] for gpu in cuda_devices.gpus()])"
    assert ask(code, MIG) == [["off"], ["on", *[f"slice of {UUIDS[1]}"] * 2]]
    assert ask(code, {**NORMAL, "mig_pending": 1}) == [["off, on after a reset"]]
    assert ask(code, {**NORMAL, "nvmlDeviceGetMigMode.error": 3}) == [["not supported"]]
    ((unknown,),) = ask(code, {**NORMAL, "nvmlDeviceGetMigMode.error": 4})
    assert unknown.startswith("unknown: nvmlDeviceGetMigMode: Insufficient Permissions")
    hidden = {name: value for name, value in MIG.items() if name != "1.slice0"}
    assert ask(code, hidden)[1] == ["on", f"slice of {UUIDS[1]}"]


def test_which_slice_an_index_means_is_not_guessed(ask: Ask) -> None:
    found = seen_by_cuda(ask, MIG, "1")
    assert found["code"] == "unsupported_target" and "2 MIG slices; name one by its UUID" in found["detail"]
    one = {name: value for name, value in MIG.items() if name != "1.slice0"}
    assert seen_by_cuda(ask, one, "1")["answered"] == [SLICES[1]]
    none = {name: value for name, value in one.items() if name != "1.slice2"}
    assert seen_by_cuda(ask, none, "1")["code"] == "no_device"
    assert seen_by_cuda(ask, MIG, f"{SLICES[1]},{SLICES[0]}")["answered"] == [SLICES[1], SLICES[0]]


def test_the_environment_names_gpus_and_slices(ask: Ask) -> None:
    code = "from hotlap.perf.environment import _gpus; told(_gpus())"
    assert ask(code, MIG) == [["NVIDIA Stand-in 80GB", "NVIDIA Stand-in MIG 1g.10gb", "NVIDIA Stand-in MIG 2g.20gb"], "580.95.05"]
    assert ask(code, {**NORMAL, "nvmlInitWithFlags.error": 9}) == [[], ""]
    for error, text in ((15, "GPU is lost"), (4, "Insufficient Permissions")):
        (named,), driver = ask(code, {**NORMAL, "nvmlDeviceGetUUID.error": error})
        assert text in named and driver == "580.95.05"


def test_memory_of_the_process_is_named_by_its_source(ask: Ask) -> None:
    code = "from hotlap.perf import memory; told(memory.gpu_bytes('cuda:0', cuda_devices.open_device('cuda:0')))"
    assert ask(code) == {"nvml_process": 3 * GIB}
    assert ask(code, {**NORMAL, "compute": ""}) == {"nvml_device_delta": 0}
    assert ask(code, {**NORMAL, "compute": "", "nvmlDeviceGetMemoryInfo.error": 3}) == {}
    assert not [name for name in memory.gpu_bytes("cuda:0") if name.startswith("nvml")]


def test_doctor_shows_each_device(child: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    code = "from rich.console import Console; from hotlap.perf import doctor; Console(width=240).print(doctor.devices())"
    lines = child(code, {**MIG, "0.throttle": "0x24"}, CUDA_VISIBLE_DEVICES=f"{SLICES[1]}").stdout.splitlines()
    assert re.search(r"Stand-in 80GB +- +10.0 GiB +80.0 GiB +1.98 GHz +2.62 GHz +3\d\d W +61 °C +sw_power_cap, sw_thermal_slowdown +0 uncorrected, 2 corrected +off", lines[1])
    assert re.search(r"MIG 2g.20gb +cuda:0 +2.00 GiB +20.0 GiB +- +- +- +- +- +- +slice", lines[4])
    below = " ".join(lines[5:])
    assert re.match(r"NVIDIA Stand-in MIG 1g.10gb, NVIDIA Stand-in MIG 2g.20gb: no sm_clock_hz, memory_clock_hz, throttle, power_w, .*: Not Supported; NVML does not", below)


def span(before: Mapping[str, Any] = {}, after: Mapping[str, Any] = {}, throttle: tuple[str, ...] = ()) -> Span:
    fine: dict[str, Any] = {"throttle": (), "ecc_uncorrected": 0, "ecc_corrected": 2, "sm_clock_hz": 1_980_000_000}
    return Span(State(**{**fine, **before}), State(**{**fine, **after}), throttle)


def test_nothing_to_warn_of() -> None:
    assert telemetry.warnings([]) == [] and telemetry.summary([]) == {}
    assert telemetry.warnings([span(throttle=("gpu_idle", "applications_clocks_setting")), span(after={"throttle": ("gpu_idle",)})]) == []


def test_clocks_held_down_in_any_turn_are_a_warning() -> None:
    held = [span(), span(throttle=("sw_power_cap",)), span(after={"throttle": ("hw_slowdown", "gpu_idle")})]
    assert telemetry.warnings(held) == ["the GPU's clocks were held down in 2 of 3 blocks: hw_slowdown, sw_power_cap"]
    unseen = Reason("unsupported_target", "why")
    blind = span(after={"throttle": None, "absent": {"throttle": unseen}})
    assert telemetry.warnings([blind]) == ["whether the GPU's clocks were held down is not known: unsupported_target: why"]


def test_ecc_errors_that_grew_are_a_warning() -> None:
    grew = telemetry.warnings([span(), span(after={"ecc_uncorrected": 1, "ecc_corrected": 5})])
    assert grew == ["1 uncorrected ECC errors of the GPU during the race; its results cannot be trusted", "3 corrected ECC errors of the GPU during the race"]
    assert telemetry.ecc_growth([span(before={"ecc_corrected": 9}, after={"ecc_corrected": 1})]) == (0, 1)
    assert telemetry.ecc_growth([span(after={"ecc_corrected": None})]) == (0, None)


def test_what_a_result_keeps_of_the_device() -> None:
    unseen = Reason("unsupported_target", "why")
    found = telemetry.summary([span(after={"sm_clock_hz": 1_500_000_000, "absent": {"power_w": unseen}}, throttle=("sw_power_cap",))])
    assert found == {
        "gpu_sm_clock_lowest_hz": 1_500_000_000, "gpu_sm_clock_highest_hz": 1_980_000_000, "gpu_throttle": "sw_power_cap",
        "gpu_ecc_uncorrected_new": 0, "gpu_ecc_corrected_new": 0, "gpu_absent": "power_w: unsupported_target: why",
    }  # fmt: skip


RACE = """
from pathlib import Path
from hotlap.perf import answer
from hotlap.perf.case import Case
from hotlap.perf.prepare import Preparation
from hotlap.perf.race import Race
from hotlap.perf.result import Plan
from hotlap.perf.servers import Servers
from hotlap.perf.workloads import Reference

plan = Plan(budget_s=BUDGET_S, looks=(2,), rounds=4, tail_s=0.02, timeout_s=60, threads=1)
folder = Path(os.environ["HOTLAP_STANDIN_NVML"]).parent / "race"
servers = Servers(folder, plan.timeout_s, lambda line: None)
made = Preparation(Reference("planted.workloads:tiny"), folder, plan, servers)
def journal():
    scenario(**CHANGES)
try:
    made.refer([Case("planted.workloads:tiny", "null")], False, lambda line: None, lambda line: None)
    lane = made.build(Case("planted.workloads:tiny", "null", target="cuda:0", options=(("takes", "0.2ms"),)))
    race = Race([lane], plan, servers, lambda line: None, journal)
    race.run()
finally:
    made.close()
    servers.close()
told(answer.answer(lane, lane, "race", plan, "", race.stopped_by, False))
"""


@pytest.fixture
def race(ask: Ask, planted: Path) -> Ask:
    """The Result of workers of their own, which do a case on the stand-in's device: only what telemetry says of it is looked at. CHANGES: after the first block."""

    def run(scenario: Mapping[str, Any] = NORMAL, changes: Mapping[str, Any] = {}, budget_s: float = 60, **environment: str) -> Any:
        return ask(RACE.replace("CHANGES", repr(dict(changes))).replace("BUDGET_S", str(budget_s)), scenario, **environment)

    return run


def test_a_race_watches_its_device(race: Ask) -> None:
    found = race(NORMAL, {"throttle": "0x20", "ecc_uncorrected": 1})
    assert "the GPU's clocks were held down in 1 of 2 blocks: sw_thermal_slowdown" in found["warnings"]
    assert "1 uncorrected ECC errors of the GPU during the race; its results cannot be trusted" in found["warnings"]
    details = found["metrics"]["latency"]["details"]
    assert (details["gpu_sm_clock_lowest_hz"], details["gpu_throttle"], details["gpu_ecc_uncorrected_new"]) == (1_980_000_000, "sw_thermal_slowdown", 1)
    assert "gpu_absent" not in details
    assert found["metrics"]["memory"]["details"]["gpu_nvml_process_bytes"] == 3 * GIB
    (first,), (second,) = found["metrics"]["energy"]["values"]
    assert first == second == pytest.approx(0.05 / 3) and found["metrics"]["energy"]["details"]["least_updates"] == 100


def test_a_race_with_too_small_a_budget_for_energy_has_none(race: Ask) -> None:
    found = race({**NORMAL, "energy_every": 400}, budget_s=2)
    assert "energy" not in found["metrics"] and found["absent"]["energy"]["code"] == "timeout"


def test_a_device_lost_midway_ends_its_case(race: Ask) -> None:
    for scenario, changes in ((NORMAL, {"every.error": 15}), ({**NORMAL, "lost_after": ASKED_UNTIL_TURNS}, {})):
        found = race(scenario, changes)
        assert (found["status"], found["reason"]["code"]) == ("failed", "crashed") and "GPU is lost" in found["reason"]["detail"]
    assert "nvmlDeviceGetCurrentClocksEventReasons" in found["reason"]["detail"], "lost in a turn, before the block's end"


def test_a_race_on_a_device_that_cannot_be_watched_says_so(race: Ask) -> None:
    found = race(NORMAL, CUDA_VISIBLE_DEVICES="")
    unseen = "no_device: cuda:0: CUDA sees 0 device(s) here (CUDA_VISIBLE_DEVICES=)"
    assert f"the GPU's clocks and memory errors were not watched: {unseen}" in found["warnings"]
    assert found["absent"]["energy"]["code"] == "no_device"
