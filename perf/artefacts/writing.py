"""The folder that a build leaves, described: its manifest is written after the build, and completed
once outputs and placement were checked.
"""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..lookup import plugins
from ..machine import cuda_devices, survey
from ..terms.case import Case
from ..terms.contract import Backend
from ..terms.files import write
from ..terms.reasons import Refusal, room
from ..terms.result import now
from ..terms.work import Subject
from . import manifest as manifests
from .manifest import FILE, REFERENCE, Manifest, Signature

if TYPE_CHECKING:
    from ..oracle.ladder import Ladder
    from ..terms.reasons import Reason
    from ..terms.result import Deviation, Placement


def describe(
    folder: Path,
    case: Case,
    subject: Subject,
    signature: Signature,
    oracle: Path,
    libraries: dict[str, str] | None,
    proven: Ladder | None,
) -> None:
    """Writes the manifest of what was just built.

    proven: of a case without its device, which nothing completes later. Raises OSError.
    """
    backend = plugins.backend(case.backend)
    needs_source = not self_contained(backend, case)
    if not needs_source:
        place_reference(oracle, folder)
    manifest = Manifest(
        case=case.id,
        backend=case.backend,
        precision=case.precision,
        batch=case.batch,
        options=dict(case.options),
        architecture=architecture(case.target),
        needs_source=needs_source,
        inputs=signature.inputs,
        outputs=signature.outputs,
        files=manifests.files(folder),
        libraries=survey.versions(survey.LOADERS) if libraries is None else libraries,
        python=platform.python_version(),
        weights=subject.weights,
        work=subject.work,
        made=now(),
        instructions=getattr(backend, "instructions", lambda *_: ())(case, folder),
    )
    if proven is not None:
        manifest = msgspec.structs.replace(
            manifest,
            checked=True,
            verified_to=proven.rung,
            placement=proven.placement,
            deviation=proven.deviation,
            reason=proven.stopped,
        )
    write(folder / FILE, manifests.encode(manifest))


def complete(
    folder: Path,
    oracle: Path,
    asked_for_source: bool | None,
    placement: Placement | None,
    deviation: Deviation | None,
    refusal: Reason | None,
) -> None:
    """Writes into the manifest what check and placement have shown, and lists what they left in the
    folder; a folder without a manifest stays as it is.

    asked_for_source: whether the first load needed the module's source, None where nothing was
    loaded. Raises Refusal(out_of_space).
    """
    if not (folder / FILE).is_file():
        return
    manifest = manifests.read(folder)
    needs_source = manifest.needs_source
    if asked_for_source is not None:
        needs_source = asked_for_source or not hasattr(plugins.backend(manifest.backend), "build")
    with room():
        if not needs_source and not (folder / REFERENCE).exists():
            place_reference(oracle, folder)
        manifest = msgspec.structs.replace(
            manifest,
            needs_source=needs_source,
            files=manifests.files(folder),
            checked=True,
            verified_to="L0" if placement is None else "L7",
            placement=placement,
            deviation=deviation,
            reason=refusal,
        )
        write(folder / FILE, manifests.encode(manifest))


def self_contained(backend: Backend, case: Case) -> bool:
    """Whether `load` needs nothing but the folder, as the backend declares it."""
    declared = getattr(backend, "SELF_CONTAINED", True)
    return hasattr(backend, "build") and bool(declared(case) if callable(declared) else declared)


def place_reference(oracle: Path, folder: Path) -> None:
    """Random inputs with their fp64 outputs and what eager makes of them, not the user's own data:
    an artefact may be given away. Nothing where the model takes no random inputs. Raises OSError.
    """
    if (oracle / "random.npz").is_file():
        link(oracle / "random.npz", folder / REFERENCE)


def link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none. Raises OSError."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def architecture(target: str) -> str:
    """cpu, or the architecture of a device or the one that the target names."""
    if not target.startswith("cuda:"):
        return target
    try:
        return cuda_devices.open_device(target).architecture
    except Refusal:
        return target
