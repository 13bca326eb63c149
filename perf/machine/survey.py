"""Surveys this machine and installation: the environment that a result carries."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from ..terms.environment import Environment
from ..terms.reasons import Refusal
from . import control_groups, cpu, cuda_devices

# Libraries whose versions an environment holds: they decide what is measured.
LIBRARIES = (
    "hotlap",
    "torch",
    "triton",
    "lightning",
    "onnx",
    "onnxscript",
    "onnxruntime-gpu",
    "onnxruntime",
    "openvino",
    "numpy",
)
# Instruction sets that decide how fast a model runs, as /proc/cpuinfo names them.
ISA = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "avx512_vnni", "amx_bf16", "amx_int8")
# Packages that build or run a model and stand in an artefact's manifest only.
BUILDERS = ("tensorrt-rtx", "tensorrt", "torch-tensorrt-rtx", "nncf")
# The packages that a manifest names.
LOADERS = (*LIBRARIES, *BUILDERS)


def collect(threads: int, allocator: str, box: str = "") -> Environment:
    """Reads /proc, package metadata and NVML, and imports no library that is measured.

    box: what each worker is held to, in words.
    """
    values = cpu.cpuinfo()
    flags = cpu.flags()
    gpus, driver = _gpus()
    return Environment(
        cpu=" ".join(values.get("model name", platform.processor() or platform.machine()).split()),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        isa=tuple(flag for flag in ISA if flag in flags),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        libraries=versions(),
        gpus=gpus,
        driver=driver,
        threads=threads,
        allocator=allocator,
        hugepages=_chosen(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        commit=_commit(),
        host=platform.node(),
        quota=control_groups.quota() or 0.0,
        box=box,
    )


def versions(names: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """Returns the version of each library that is installed for this process."""
    installed = {}
    for name in names:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def _gpus() -> tuple[tuple[str, ...], str]:
    """Returns the names of the GPUs, of one in MIG mode those of its slices, and the driver's
    version.

    Empty without a driver; what a driver cannot tell is named.
    """
    try:
        version = cuda_devices.driver()
    except Refusal:
        return (), ""
    try:
        return tuple(device.name for gpu in cuda_devices.gpus() for device in gpu.mig() or [gpu]), version
    except Refusal as refused:
        return (str(refused.reason),), version


def _chosen(path: Path) -> str:
    """Returns the bracketed word of a sysfs choice such as `always [madvise] never`."""
    try:
        return path.read_text().split("[")[1].split("]")[0]
    except (OSError, IndexError):
        return "unknown"


def _commit() -> str:
    """Returns the commit of the directory hotlap is started in, with + for uncommitted changes;
    empty outside a repository.
    """
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return described.stdout.strip() if described.returncode == 0 else ""
