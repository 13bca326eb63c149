"""Where a result was measured.

`differs` says what of it forbids a comparison and what is only worth a note.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import msgspec

from . import cuda_devices
from .reasons import Refusal

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

# Instructions that multiply matrices of a precision (Intel 64 and IA-32 Architectures Software
# Developer's Manual, volume 1, chapters 15 to 18).
HALF_PRODUCTS = {"bf16": ("avx512_bf16", "amx_bf16"), "fp16": ("avx512_fp16", "amx_fp16")}
# What never forbids a comparison.
NOTED = ("host", "commit", "system", "memory_bytes")


class Differences(NamedTuple):
    """Field -> (mine, theirs)."""

    blocking: dict[str, tuple[str, str]]
    noted: dict[str, tuple[str, str]]


class Environment(msgspec.Struct, frozen=True):
    cpu: str
    cores: int
    memory_bytes: int
    isa: tuple[str, ...]
    system: str
    python: str
    libraries: dict[str, str]
    gpus: tuple[str, ...]
    driver: str
    threads: int
    allocator: str
    hugepages: str
    commit: str
    host: str

    @property
    def key(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:12]

    def differs(self, other: Environment) -> Differences:
        """What differs from `other`; host name, commit and kernel release never forbid a
        comparison.
        """
        mine, theirs = self.fields, other.fields
        different = {
            name: (mine.get(name, "none"), theirs.get(name, "none"))
            for name in {**mine, **theirs}
            if mine.get(name) != theirs.get(name)
        }
        noted = {name: pair for name, pair in different.items() if name in NOTED}
        return Differences({name: pair for name, pair in different.items() if name not in noted}, noted)

    @property
    def fields(self) -> dict[str, str]:
        """Every field as text, each library by its own name."""
        flat = {
            name: str(value) for name, value in msgspec.structs.asdict(self).items() if name != "libraries"
        }
        return {**flat, **self.libraries}

    @property
    def setting(self) -> dict[str, str]:
        """What two results must share to be compared."""
        return {name: value for name, value in self.fields.items() if name not in NOTED}

    @property
    def hardware(self) -> str:
        """One line for the head of a table."""
        accelerators = ", ".join(self.gpus) or "no GPU"
        return (
            f"{self.cpu}, {self.threads} of {self.cores} cores ({', '.join(self.isa) or 'baseline'}),"
            f" {self.memory_bytes / 2**30:.0f} GiB, {accelerators}"
        )


def collect(threads: int, allocator: str) -> Environment:
    """Reads /proc, package metadata and NVML; imports no library that is measured."""
    values = _cpuinfo()
    flags = cpu_flags()
    known = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "avx512_vnni", "amx_bf16", "amx_int8")
    gpus, driver = _gpus()
    return Environment(
        cpu=" ".join(values.get("model name", platform.processor() or platform.machine()).split()),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        isa=tuple(flag for flag in known if flag in flags),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        libraries=_versions(),
        gpus=gpus,
        driver=driver,
        threads=threads,
        allocator=allocator,
        hugepages=_chosen(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        commit=_commit(),
        host=platform.node(),
    )


def cpu_flags() -> frozenset[str]:
    """Instruction sets of the first core, as /proc/cpuinfo names them (flags, on Arm Features);
    empty where there is no such file.
    """
    values = _cpuinfo()
    return frozenset(values.get("flags", values.get("Features", "")).split())


def _cpuinfo() -> dict[str, str]:
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    return {
        name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _gpus() -> tuple[tuple[str, ...], str]:
    """Names of the GPUs, of one in MIG mode those of its slices, and the driver's version.

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
    """The bracketed word of a sysfs choice such as `always [madvise] never`."""
    try:
        return path.read_text().split("[")[1].split("]")[0]
    except (OSError, IndexError):
        return "unknown"


def _commit() -> str:
    """The commit of the directory hotlap is started in, with + for uncommitted changes; empty
    outside a repository.
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
