"""What the stand-in NVML is told to answer, and how its answers are read back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from hotlap.perf.machine.telemetry import State

Ask = Callable[..., Any]

GIB = 2**30
UUIDS = ("GPU-11111111-aaaa-0000-0000-000000000000", "GPU-22222222-bbbb-0000-0000-000000000000")
SLICES = ("MIG-aaaaaaaa-0000-0000-0000-000000000000", "MIG-bbbbbbbb-0000-0000-0000-000000000000")
NORMAL = {
    "driver": "580.95.05",
    "gpus": 1,
    "name": "NVIDIA Stand-in 80GB",
    "0.uuid": UUIDS[0],
    "1.uuid": UUIDS[1],
    "total_bytes": 80 * GIB,
    "used_bytes": 10 * GIB,
    "compute": f"self:{3 * GIB},1:{5 * GIB}",
    "sm_mhz": 1980,
    "memory_mhz": 2619,
    "throttle": "0x0",
    "power_mw": 350500,
    "energy_mj": 1_234_500,
    "energy_step_mj": 50,
    "energy_every": 3,
    "gpu_percent": 97,
    "memory_percent": 41,
    "ecc_uncorrected": 0,
    "ecc_corrected": 2,
    "celsius": 61,
}
TWO = {**NORMAL, "gpus": 2, "1.celsius": 33}
MIG = {
    **TWO,
    "name": "NVIDIA Stand-in 80GB",
    "1.mig": 1,
    "1.mig_pending": 1,
    "1.slice0": 1,
    "1.slice2": 1,
    "1/0.uuid": SLICES[0],
    "1/2.uuid": SLICES[1],
    "1/0.name": "NVIDIA Stand-in MIG 1g.10gb",
    "1/2.name": "NVIDIA Stand-in MIG 2g.20gb",
    "1/0.total_bytes": 10 * GIB,
    "1/2.total_bytes": 20 * GIB,
    "1/0.used_bytes": 1 * GIB,
    "1/2.used_bytes": 2 * GIB,
    "1/0.gpu_instance": 7,
    "1/2.gpu_instance": 3,
}

READ = "reply(cuda_devices.open_device('cuda:0').read())"


def state(answered: Any) -> State:
    return msgspec.convert(answered, State)


def absent(answered: Any) -> dict[str, str]:
    return {name: reason.code for name, reason in state(answered).absent.items()}
