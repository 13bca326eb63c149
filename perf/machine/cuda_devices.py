"""Which device of NVML is the one that CUDA calls cuda:N: of the GPUs that the driver lists, what
CUDA_VISIBLE_DEVICES leaves and in which order, MIG slices included.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from ..terms.reasons import Reason, Refusal
from .telemetry import Device, refusal


def gpus() -> list[Device]:
    """Every GPU that this process may use, in the driver's order (that of nvidia-smi), slices
    aside.

    Raises Refusal(no_device) where no driver answers, crashed where a GPU is lost.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        raise Refusal("no_device", f"no NVIDIA driver answers here ({error})") from error
    found = []
    for index in range(count):
        try:
            found.append(Device(pynvml, pynvml.nvmlDeviceGetHandleByIndex(index)))
        except pynvml.NVMLError as error:
            if error.value != pynvml.NVML_ERROR_NO_PERMISSION:  # a cgroup hides this GPU, from CUDA too
                raise refusal(pynvml, error, "nvmlDeviceGetHandleByIndex", False) from error
    return found


def driver() -> str:
    """Version of the driver. Raises Refusal(no_device)."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError as error:
        raise Refusal("no_device", f"no NVIDIA driver answers here ({error})") from error


def open_device(target: str, environment: Mapping[str, str] = os.environ) -> Device:
    """The device that CUDA calls cuda:N in a process with this environment. Raises Refusal."""
    devices, number = visible(gpus(), environment), int(target.partition(":")[2])
    if number >= len(devices):
        shown = environment.get("CUDA_VISIBLE_DEVICES")
        raise Refusal(
            "no_device",
            f"{target}: CUDA sees {len(devices)} device(s) here"
            + (f" (CUDA_VISIBLE_DEVICES={shown})" if shown is not None else ""),
        )
    return devices[number]


def attach(target: str) -> tuple[Device | None, Reason | None]:
    """The target's device, or why there is no telemetry of it; neither for a target that is no CUDA
    device. Raises Refusal(crashed) where a GPU is lost.
    """
    if not target.startswith("cuda:"):
        return None, None
    try:
        return open_device(target), None
    except Refusal as refused:
        if refused.reason.code == "crashed":
            raise
        return None, refused.reason


def visible(devices: Sequence[Device], environment: Mapping[str, str]) -> list[Device]:
    """What CUDA enumerates of the GPUs, in its order (CUDA programming guide, CUDA_VISIBLE_DEVICES;
    torch.cuda reads it the same way).

    Indices, or UUIDs of GPUs or of MIG slices, which may be abbreviated; the list ends at the first
    that is none. Raises Refusal where it cannot be known.
    """
    shown = environment.get("CUDA_VISIBLE_DEVICES")
    items = (
        [str(index) for index in range(len(devices))]
        if shown is None
        else [item.strip() for item in shown.split(",")]
    )
    by_uuid = items[:1] != [] and items[0].startswith(("GPU-", "MIG-"))
    chosen: list[Device] = []
    for item in items:
        one = named(devices, item, items[0][:4]) if by_uuid else numbered(devices, item, environment)
        if one is None:
            break
        if any(one.uuid == other.uuid for other in chosen):
            return []
        chosen.append(one)
    return chosen


def numbered(devices: Sequence[Device], item: str, environment: Mapping[str, str]) -> Device | None:
    """The GPU, or its only slice, at an index as strtol reads it.

    Raises Refusal where CUDA's order or its choice of a slice is unknown.
    """
    found = re.match(r"[+-]?\d+", item)
    index = int(found[0]) if found else -1
    if not 0 <= index < len(devices):
        return None
    if len({device.name for device in devices}) > 1 and environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise Refusal(
            "unsupported_target",
            "GPUs of different kinds are here, which CUDA numbers by speed and NVML by place; set"
            " CUDA_DEVICE_ORDER=PCI_BUS_ID",
        )
    gpu = devices[index]
    if gpu.mig_mode().partition(",")[0] != "on":
        return gpu
    slices = gpu.mig()
    if len(slices) != 1:
        raise Refusal(
            "unsupported_target" if slices else "no_device",
            f"{gpu.uuid} has {len(slices)} MIG slices; name one by its UUID in CUDA_VISIBLE_DEVICES"
            " (nvidia-smi -L)",
        )
    return slices[0]


def named(devices: Sequence[Device], item: str, kind: str) -> Device | None:
    """By UUID, all of one kind (GPU- or MIG-); also MIG-GPU-uuid/instance/compute instance, as
    drivers before 470 write it.
    """
    if not item.startswith(kind):
        return None
    if kind == "GPU-":
        found = [device for device in devices if device.uuid.startswith(item)]
    else:
        slices = [one for device in devices for one in device.mig()]
        found = [one for one in slices if one.uuid.startswith(item)] or [
            one for one in slices if legacy(one) == item
        ]
    return found[0] if len(found) == 1 else None


def legacy(one: Device) -> str:
    assert one.parent is not None
    gpu, compute = one.ask("nvmlDeviceGetGpuInstanceId"), one.ask("nvmlDeviceGetComputeInstanceId")
    return f"MIG-{one.parent.uuid}/{gpu}/{compute}"
