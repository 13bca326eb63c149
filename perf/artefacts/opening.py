"""An artefact: the folder that a build leaves, with all that is needed to run the model again, and
its manifest (manifest.py).

    from hotlap import open_artefact
    model = open_artefact("runs/race/ID/work/GROUP/artefacts/onnxruntime-fp32")
    (logits,) = model(images)          # numpy arrays in, numpy arrays out

Neither Lightning nor the model's source is needed for the backends that load from files alone; the
manifest of the others says so. Backends with `build` are taken to be such unless SELF_CONTAINED
says otherwise, and what the first load really asked for wins over both.
"""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..lookup import plugins
from ..lookup.cases import parse_backend
from ..machine import cores, cpu, cuda_devices, survey
from ..terms import escape
from ..terms.case import Case
from ..terms.contract import Arrays, Artefact, Step, modules
from ..terms.reasons import WRONG, Misuse, Refusal, Unreadable
from . import manifest as manifests
from . import npz
from .manifest import REFERENCE, Manifest

if TYPE_CHECKING:
    from ..terms.case import Workload


def capabilities() -> tuple[list[str], str]:
    """The architecture of each device as CUDA numbers them, and why there is none."""
    try:
        architectures = [
            device.architecture for device in cuda_devices.visible(cuda_devices.gpus(), os.environ)
        ]
    except Refusal as refusal:
        return [], refusal.reason.detail
    return architectures, f"this machine has {', '.join(architectures) or 'no NVIDIA device'}"


def checked(folder: Path, compared: bool = True) -> Manifest:
    """The manifest of a folder that holds what it lists and that a backend can load from files
    alone. compared: and a reference for its outputs. Raises Misuse with one line.
    """
    manifest = manifests.read(folder)
    try:
        parse_backend(manifest.parsed().spec)
    except Misuse as error:
        raise Unreadable(f"{folder}: {error}") from None
    if manifest.needs_source or not hasattr(plugins.backend(manifest.backend), "build"):
        again = f"hotlap run {manifest.parsed().workload} --backends {manifest.backend}"
        raise Unreadable(
            f"{folder}: {manifest.backend} needs the module's source to load it; with the source at hand:"
            f" {again}"
        )
    manifests.compare(folder, manifest)
    shapes = {
        file.path: npz.check(folder / file.path) for file in manifest.files if file.path.endswith(".npz")
    }
    if REFERENCE not in shapes:
        if not compared:
            return manifest
        raise Unreadable(
            f"{folder}: {REFERENCE} is missing, against which its outputs are checked; a model that takes no"
            " random inputs has none"
        )
    if not complete(manifest, shapes[REFERENCE]):
        raise Unreadable(f"{folder}: {REFERENCE} does not hold the inputs and outputs of {manifest.case}")
    return manifest


def complete(manifest: Manifest, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a reference has, for each input and output that a manifest lists, as many batches:
    those that went in, what fp64 and what eager made of them.
    """
    prefixes = {
        "in": manifest.inputs,
        "ref": manifest.outputs,
        f"eager-{manifest.precision}-": manifest.outputs,
    }
    names = {f"{prefix}{index}" for prefix, tensors in prefixes.items() for index in range(len(tensors))}
    if names != {name for name in shapes if name.startswith(tuple(prefixes))}:
        return False
    batches = {shapes[name][:1] for name in names}
    return len(batches) == 1 and batches.isdisjoint({(), (0,)})


def here(manifest: Manifest) -> Case:
    """The case on the target of this machine that it was built for.

    Raises Refusal: no_device, unsupported_target, or what the backend lacks.
    """
    case = manifest.parsed()
    if lacking := [name for name in manifest.instructions if name not in cpu.flags()]:
        raise Refusal(
            "unsupported_target",
            f"its machine code may use {', '.join(lacking)}, which this CPU does not have; build it on"
            f" this machine: hotlap run {case.workload} --backends {shlex.quote(case.spec)}",
        )
    if manifest.architecture != "cpu":
        devices, why = capabilities()
        if manifest.architecture not in devices:
            remedy = (
                f"run it on a GPU of that architecture, or build it for another: hotlap run {case.workload}"
                f" --backends {case.backend} --target cuda:0"
            )
            raise Refusal("no_device", f"built for {manifest.architecture}, and {why}; {remedy}")
        case = replace(case, target=f"cuda:{devices.index(manifest.architecture)}")
    backend = plugins.backend(case.backend)
    reason = backend.available(case.target) or backend.supports(case)
    if reason is not None:
        raise Refusal(reason.code, reason.detail)
    return case


def doubts(manifest: Manifest) -> list[str]:
    """One line each: other major versions of what loads it, a model that no check has seen run,
    outputs that were wrong.
    """
    lines = []
    needed = {
        manifest.backend,
        *(name.partition(".")[0] for name in modules(plugins.backend(manifest.backend), manifest.parsed())),
    }
    installed = survey.versions(survey.LOADERS)
    for name, then in manifest.libraries.items():
        now_is = installed.get(name)
        if (
            now_is is not None
            and any(name.startswith(word) for word in needed)
            and now_is.partition(".")[0] != then.partition(".")[0]
        ):
            lines.append(
                f"built with {name} {then}, here is {now_is}: another major version may compute otherwise or"
                " refuse it"
            )
    if manifest.verified_to != "L7":
        lines.append(
            f"it was proven to {manifest.verified_to} only and has never been seen to run on"
            f" {manifest.architecture}"
        )
    if manifest.reason is not None:
        lines.append(f"when it was built: {manifest.reason}")
    return lines


class Opened:
    """A model that takes numpy arrays in the order of `manifest.inputs` and returns a tuple of
    float arrays (what is no float64 becomes float32). For one thread at a time.

    Axes that the manifest calls dynamic may have any size from 1, those of one name the same. What
    is loaded first is as it was measured, for the sizes of the case; with the first call of other
    sizes it is loaded once more, for any.
    """

    def __init__(self, folder: Path, manifest: Manifest, case: Case, threads: int) -> None:
        # Threads are not bound: this process is not the harness's.
        case = replace(case, options=tuple({**dict(case.options), "binding": "none"}.items()))
        self.manifest = manifest
        self._artefact = Artefact(case, folder, threads, self._no_workload, None)
        self.step = self._load(self._artefact)

    def __call__(self, *arrays: Any) -> Arrays:
        self._fits(arrays)
        as_built = all(
            array.shape == tensor.shape for array, tensor in zip(arrays, self.manifest.inputs, strict=True)
        )
        step = self.step if as_built else self._any_size
        outputs = step.call(step.place(arrays))
        step.synchronize()
        return step.fetch(outputs)

    @cached_property
    def _any_size(self) -> Step:
        return self._load(replace(self._artefact, free=True))

    @staticmethod
    def _load(artefact: Artefact) -> Step:
        """Raises Refusal."""
        return plugins.backend(artefact.case.backend).load(artefact)

    def _fits(self, arrays: tuple[Any, ...]) -> None:
        """Raises Misuse."""
        import numpy as np

        sizes: dict[str, int] = {}
        if len(arrays) != len(self.manifest.inputs):
            raise Misuse(f"{self.manifest.case} takes {len(self.manifest.inputs)} arrays, not {len(arrays)}")
        for array, tensor in zip(arrays, self.manifest.inputs, strict=True):
            if not isinstance(array, np.ndarray) or not tensor.takes(array.shape, sizes):
                received = (
                    f"{array.dtype}{list(array.shape)}"
                    if isinstance(array, np.ndarray)
                    else type(array).__name__
                )
                raise Misuse(f"{tensor.wanted}, not {received}")
            if np.issubdtype(array.dtype, np.floating) != ("float" in tensor.dtype) or array.dtype == object:
                raise Misuse(f"{manifests.printable(tensor.name)} takes {tensor.dtype}, not {array.dtype}")

    def _no_workload(self) -> Workload:
        raise Refusal(
            "invalid_input",
            f"{self.manifest.backend} asks for the module's source, which an artefact does not hold",
        )


def open_artefact(folder: str | Path, threads: int = 0) -> Opened:
    """Checks every file of the folder against its manifest, then loads it.

    threads: default those that it was measured with.

    Raises Misuse (damaged, wrong when it was built) or Refusal (no device, library missing), each
    with one line; what is only doubtful is a warning.
    """
    folder = Path(folder)
    manifest = checked(folder, compared=False)
    if manifest.reason is not None and manifest.reason.code in WRONG:
        raise Unreadable(f"{folder}: its outputs were wrong when it was built: {manifest.reason}")
    for line in doubts(manifest):
        warnings.warn(escape.log(line), stacklevel=2)
    case = here(manifest)
    return Opened(folder, manifest, case, threads or case.threads(cores.count()))
