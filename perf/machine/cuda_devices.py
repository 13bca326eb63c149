"""Finds the device of NVML that CUDA calls cuda:N: of the GPUs that the driver lists, what
CUDA_VISIBLE_DEVICES leaves and in which order, MIG slices included.

pynvml is imported where the driver is asked, because every command imports this module.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from ..terms.reasons import Reason, Refusal
from .telemetry import Device, refusal


def gpus() -> list[Device]:
    """Returns every GPU that this process may use, in the driver's order (that of nvidia-smi),
    slices aside.

    Raises Refusal(no_device) where no driver answers, crashed where a GPU is lost.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        raise Refusal("no_device", f"no NVIDIA driver answers here ({error})") from error
    usable = []
    for index in range(count):
        try:
            usable.append(Device(pynvml, pynvml.nvmlDeviceGetHandleByIndex(index)))
        except pynvml.NVMLError as error:
            if error.value != pynvml.NVML_ERROR_NO_PERMISSION:  # a cgroup hides this GPU, from CUDA too
                raise refusal(pynvml, error, "nvmlDeviceGetHandleByIndex", False) from error
    return usable


def driver() -> str:
    """Returns the version of the driver. Raises Refusal(no_device)."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError as error:
        raise Refusal("no_device", f"no NVIDIA driver answers here ({error})") from error


def open_device(target: str, environment: Mapping[str, str] = os.environ) -> Device:
    """Opens the device that CUDA calls cuda:N in a process of this environment. Raises Refusal."""
    devices, number = visible(gpus(), environment), int(target.partition(":")[2])
    if number >= len(devices):
        shown = environment.get("CUDA_VISIBLE_DEVICES")
        why = "" if shown is None else f" (CUDA_VISIBLE_DEVICES={shown})"
        raise Refusal("no_device", f"{target}: CUDA sees {len(devices)} device(s) here{why}")
    return devices[number]


def attach(target: str) -> tuple[Device | None, Reason | None]:
    """Returns the target's device, or why there is no telemetry of it; neither for a target that is
    no CUDA device. Raises Refusal(crashed) where a GPU is lost.
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
    """Returns what CUDA enumerates of the GPUs, in its order (CUDA programming guide,
    CUDA_VISIBLE_DEVICES; torch.cuda reads it the same way).

    Indices, or UUIDs of GPUs or of MIG slices, which may be abbreviated; the list ends at the first
    that is none. Raises Refusal where it cannot be known.
    """
    shown = environment.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        items = [str(index) for index in range(len(devices))]
    else:
        items = [item.strip() for item in shown.split(",")]
    by_uuid = items[:1] != [] and items[0].startswith(("GPU-", "MIG-"))
    chosen: list[Device] = []
    for item in items:
        device = named(devices, item, items[0][:4]) if by_uuid else numbered(devices, item, environment)
        if device is None:
            break
        if any(device.uuid == other.uuid for other in chosen):
            return []
        chosen.append(device)
    return chosen


def numbered(devices: Sequence[Device], item: str, environment: Mapping[str, str]) -> Device | None:
    """Returns the GPU, or its only slice, at an index as strtol reads it; None beyond the last.

    Raises Refusal where CUDA's order or its choice of a slice is unknown.
    """
    number = re.match(r"[+-]?\d+", item)
    index = int(number[0]) if number else -1
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


def faked(target: str) -> None:
    """Raises Refusal(dep_missing) where torch cannot take a tensor to a fake device without a
    driver.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    value, fake = torch.ones(1), FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with fake:
            value.to(target)
    except RuntimeError as error:
        if "driver" not in str(error):
            raise
        raise Refusal(
            "dep_missing",
            f"torch {torch.__version__} needs NVIDIA's driver to trace a model for a GPU that is not here;"
            " torch 2.11 does not: pip install 'torch>=2.11'",
        ) from error


def named(devices: Sequence[Device], item: str, kind: str) -> Device | None:
    """Returns the device of a UUID, or of the only one that begins so; None where there is none.

    All of a list are of one kind (GPU- or MIG-). Also MIG-GPU-uuid/instance/compute instance, as
    drivers before 470 write it.
    """
    if not item.startswith(kind):
        return None
    if kind == "GPU-":
        matches = [device for device in devices if device.uuid.startswith(item)]
    else:
        slices = [part for device in devices for part in device.mig()]
        matches = [part for part in slices if part.uuid.startswith(item)]
        matches = matches or [part for part in slices if legacy(part) == item]
    return matches[0] if len(matches) == 1 else None


def legacy(part: Device) -> str:
    """Returns the name of a MIG slice as drivers before 470 write it."""
    assert part.parent is not None
    gpu, compute = part.ask("nvmlDeviceGetGpuInstanceId"), part.ask("nvmlDeviceGetComputeInstanceId")
    return f"MIG-{part.parent.uuid}/{gpu}/{compute}"
