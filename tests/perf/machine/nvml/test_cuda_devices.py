"""Which device an index of CUDA means:

CUDA_VISIBLE_DEVICES, the order of GPUs, MIG slices, devices that a container hides.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from .scenarios import GIB, MIG, NORMAL, READ, SLICES, TWO, UUIDS, Ask, absent, state


def seen_by_cuda(ask: Ask, scenario: Mapping[str, Any], visible: str | None, **environment: str) -> Any:
    variables = environment if visible is None else {**environment, "CUDA_VISIBLE_DEVICES": visible}
    return ask(
        "reply(refused(lambda: [device.uuid for device in cuda_devices.visible(cuda_devices.gpus(),"
        " os.environ)]))",
        scenario,
        **variables,
    )


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
    code = f"""
import torch
UUIDS = {list(UUIDS)!r}
def torchs(value):
    os.environ["CUDA_VISIBLE_DEVICES"] = value
    visible = torch.cuda._parse_visible_devices()
    if visible and isinstance(visible[0], str):
        visible = torch.cuda._transform_uuid_to_ordinals(visible, UUIDS)
    end = next((end for end, index in enumerate(visible) if index > 1), None)
    return [UUIDS[index] for index in visible[:end]]
def ours(value):
    return [device.uuid for device in cuda_devices.visible(gpus, {{"CUDA_VISIBLE_DEVICES": value}})]
gpus = cuda_devices.gpus()
values = ["", "0", "1", "1,0", "0,1", "0,-1,1", "-0", "+1", "0,0", "0,9,1", "1gpu,0", "x", "1,x,0"]
values += ["GPU-1", "GPU-2,GPU-1", "GPU-1,GPU-11", "GPU-", "GPU-1,0", "0,GPU-1", "GPU-7,GPU-1"]
reply([[value, torchs(value), ours(value)] for value in values])
"""
    for value, torchs, ours in ask(code, TWO):
        assert ours == torchs, value


def test_another_index_is_another_device(ask: Ask) -> None:
    assert state(ask("reply(cuda_devices.open_device('cuda:1').read())", TWO)).temperature_c == 33
    assert state(ask(READ, TWO, CUDA_VISIBLE_DEVICES="1")).temperature_c == 33
    reason = ask(
        "reply(refused(lambda: cuda_devices.open_device('cuda:1').read()))", TWO, CUDA_VISIBLE_DEVICES="1"
    )
    assert reason == {
        "code": "no_device",
        "detail": "cuda:1: CUDA sees 1 device(s) here (CUDA_VISIBLE_DEVICES=1)",
    }


def test_gpus_of_different_kinds_are_not_guessed(ask: Ask) -> None:
    mixed = {"1.name": "NVIDIA Another", **TWO}
    assert seen_by_cuda(ask, mixed, None)["code"] == "unsupported_target"
    assert seen_by_cuda(ask, mixed, None, CUDA_DEVICE_ORDER="PCI_BUS_ID")["answered"] == list(UUIDS)
    assert seen_by_cuda(ask, mixed, UUIDS[1])["answered"] == [UUIDS[1]]


def test_a_gpu_that_a_cgroup_hides_is_not_counted(ask: Ask) -> None:
    assert seen_by_cuda(ask, {**TWO, "0.nvmlDeviceGetHandleByIndex_v2.error": 4}, None)["answered"] == [
        UUIDS[1]
    ]


@pytest.mark.parametrize("visible", [SLICES[1], "MIG-bb", f"MIG-{UUIDS[1]}/3/0"])
def test_a_slice_is_read_as_a_slice(ask: Ask, visible: str) -> None:
    seen = ask(READ, MIG, CUDA_VISIBLE_DEVICES=visible)
    assert (state(seen).total_bytes, state(seen).used_bytes, state(seen).process_bytes) == (
        20 * GIB,
        2 * GIB,
        3 * GIB,
    )
    whole = (
        "sm_clock_hz",
        "memory_clock_hz",
        "throttle",
        "power_w",
        "energy_j",
        "gpu_utilisation",
        "memory_utilisation",
        "ecc_uncorrected",
        "ecc_corrected",
        "temperature_c",
    )
    assert absent(seen) == dict.fromkeys(whole, "unsupported_target")
    assert all("on a MIG slice" in reason.detail for reason in state(seen).absent.values())


def test_the_mode_of_a_device(ask: Ask) -> None:
    code = "reply([[part.mig_mode() for part in (gpu, *gpu.mig())] for gpu in cuda_devices.gpus()])"
    assert ask(code, MIG) == [["off"], ["on", *[f"slice of {UUIDS[1]}"] * 2]]
    assert ask(code, {**NORMAL, "mig_pending": 1}) == [["off, on after a reset"]]
    assert ask(code, {**NORMAL, "nvmlDeviceGetMigMode.error": 3}) == [["not supported"]]
    ((unknown,),) = ask(code, {**NORMAL, "nvmlDeviceGetMigMode.error": 4})
    assert unknown.startswith("unknown: nvmlDeviceGetMigMode: Insufficient Permissions")
    hidden = {name: value for name, value in MIG.items() if name != "1.slice0"}
    assert ask(code, hidden)[1] == ["on", f"slice of {UUIDS[1]}"]


def test_which_slice_an_index_means_is_not_guessed(ask: Ask) -> None:
    reason = seen_by_cuda(ask, MIG, "1")
    assert reason["code"] == "unsupported_target" and "2 MIG slices; name one by its UUID" in reason["detail"]
    single = {name: value for name, value in MIG.items() if name != "1.slice0"}
    assert seen_by_cuda(ask, single, "1")["answered"] == [SLICES[1]]
    none = {name: value for name, value in single.items() if name != "1.slice2"}
    assert seen_by_cuda(ask, none, "1")["code"] == "no_device"
    assert seen_by_cuda(ask, MIG, f"{SLICES[1]},{SLICES[0]}")["answered"] == [SLICES[1], SLICES[0]]


@pytest.mark.parametrize(
    ("visible", "seen"), [(None, ["sm_80", "sm_89"]), ("1", ["sm_89"]), ("1,0", ["sm_89", "sm_80"])]
)
def test_an_artefact_looks_for_its_architecture_where_cuda_has_it(
    ask: Ask, visible: str | None, seen: list[str]
) -> None:
    """cuda:N of a process is the Nth of those that it is shown."""
    both = {**TWO, "0.capability": 80, "1.capability": 89}
    shown = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert (
        ask(
            "from hotlap.perf.artefacts import opening as artefact; reply(artefact.capabilities()[0])",
            both,
            **shown,
        )
        == seen
    )


AUTOMATIC = (
    "from hotlap.perf.machine import present; reply([*present.automatic_target(), 'torch' in sys.modules])"
)


@pytest.mark.parametrize(
    ("scenario", "visible", "target", "line"),
    [
        (NORMAL, None, "cuda:0", "target cuda:0, NVIDIA Stand-in 80GB"),
        (TWO, "1", "cuda:0", "target cuda:0, NVIDIA Stand-in 80GB"),
        ({**NORMAL, "nvmlInitWithFlags.error": 9}, None, "cpu", "no GPU here: target cpu"),
        (
            NORMAL,
            "",
            "cpu",
            "no GPU for this process: target cpu (cuda:0: CUDA sees 0 device(s) here"
            " (CUDA_VISIBLE_DEVICES=))",
        ),
        (MIG, SLICES[1], "cuda:0", "target cuda:0, NVIDIA Stand-in MIG 2g.20gb"),
    ],
)
def test_the_target_where_nobody_names_one(
    ask: Ask, scenario: Mapping[str, Any], visible: str | None, target: str, line: str
) -> None:
    """The driver is asked, and torch is not imported for it."""
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert ask(AUTOMATIC, scenario, **environment) == [target, line, False]


def test_a_gpu_that_the_installed_torch_cannot_use_is_not_taken(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "version.py").write_text("cuda = None\n")
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('nobody asked for it')\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    target, line, imported = ask(AUTOMATIC, NORMAL, PYTHONPATH=path)
    assert (target, imported) == ("cpu", False)
    assert line == "target cpu: the torch that is installed is built without CUDA, for NVIDIA Stand-in 80GB"
