"""manifest.json: what an artefact says of itself, and whether its folder is as it says.

Nothing of a folder is loaded before both have been looked at.

Read by production machines without hotlap too (docs/artefacts.md), so fields have plain types and
are never renamed within a schema. It holds no path of the machine that made it.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec

from ..terms import stored
from ..terms.case import Case
from ..terms.reasons import Misuse, Reason, Unreadable
from ..terms.result import Deviation, Placement, Rung
from ..terms.stored import Count
from ..terms.work import Work

# 1 (0.1.0): first version.
SCHEMA = 1
# Names within the folder.
FILE = "manifest.json"
REFERENCE = "reference.npz"
# What Python leaves where a program imports predict.py (choose/ship.py); nothing of ours reads it.
LEFT_BY_PYTHON = re.compile(r"__pycache__/predict\.[\w.-]+\.pyc")
# A manifest of a model with thousands of inputs has a tenth of it.
MOST_BYTES = 16 * 2**20
# An absolute path of at least two folders: its last part stays.
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:[^\s/\"':,;()]+/)+(?=[^\s/])")


class Tensor(msgspec.Struct, frozen=True):
    """An input or output of the model file.

    shape: as the case has it. dynamic: axis -> name, for those that may have any size.
    """

    name: str
    dtype: str
    shape: tuple[Count, ...]
    dynamic: dict[str, str] = {}

    @property
    def wanted(self) -> str:
        """What it takes, in words, such as in0 takes float32[batch, 64]."""
        axes = [self.dynamic.get(str(axis), str(size)) for axis, size in enumerate(self.shape)]
        return printable(f"{self.name} takes {self.dtype}[{', '.join(axes)}]")

    def takes(self, shape: tuple[int, ...], sizes: dict[str, int]) -> bool:
        """Whether a shape fits. sizes: of the dynamic axes until now, by name; gets its own."""
        if len(shape) != len(self.shape):
            return False
        names = [self.dynamic.get(str(axis)) for axis in range(len(shape))]
        wanted = tuple(
            own if name is None else sizes.setdefault(name, max(1, size))
            for name, own, size in zip(names, self.shape, shape, strict=True)
        )
        return shape == wanted


class Signature(msgspec.Struct, frozen=True):
    """Inputs and outputs of a model, in its own order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class File(msgspec.Struct, frozen=True):
    """path: relative to the folder, with /."""

    path: str
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    bytes: Count


class Manifest(msgspec.Struct, frozen=True):
    """What an artefact says of itself."""

    # The case's id; backend, precision, batch and options stand in it too.
    case: str
    backend: str
    precision: str
    batch: Count
    options: dict[str, str]
    # cpu or sm_XX.
    architecture: str
    # Whether loading it needs the module's source: then it is no model by itself.
    needs_source: bool
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    files: tuple[File, ...]
    # Versions of the libraries and of the Python that built it.
    libraries: dict[str, str]
    python: str
    # Where the weights come from, in words.
    weights: str
    work: Work
    # When it was built, ISO 8601 in UTC.
    made: str
    # Whether the oracle has seen it.
    checked: bool = False
    # How far it was proven, where it ran and how far from fp64, as in results.
    verified_to: Rung = "L0"
    placement: Placement | None = None
    deviation: Deviation | None = None
    # Why it did not pass; None where it did.
    reason: Reason | None = None
    # Instruction sets that its machine code for the CPU may use, as /proc/cpuinfo names them.
    instructions: tuple[Annotated[str, msgspec.Meta(pattern="^[a-z0-9_]{1,32}$")], ...] = ()
    schema: int = SCHEMA

    def parsed(self) -> Case:
        """Raises Misuse."""
        return Case.parse(self.case)


class _Head(msgspec.Struct):
    """What is read first: another schema may have other fields."""

    schema: int


def encode(manifest: Manifest) -> bytes:
    """Indented JSON without a path of this machine."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1).decode()
    return MACHINE_PATH.sub("", text).encode() + b"\n"


def read(folder: Path) -> Manifest:
    """The manifest alone. Raises Unreadable with one line."""
    path = folder / FILE
    try:
        state = path.lstat()
        if not stat.S_ISREG(state.st_mode):
            raise Unreadable(f"{path}: no regular file")
        if state.st_size > MOST_BYTES:
            raise Unreadable(f"{path}: {state.st_size} bytes; a manifest has at most {MOST_BYTES}")
    except FileNotFoundError:
        raise Unreadable(
            f"{path}: there is no such file; an artefact is a folder in runs/race/ID/work/.../artefacts/"
        ) from None
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from None
    content, wrong = stored.content(path, MOST_BYTES), "not the manifest of an artefact"
    schema = stored.decode(path, content, _Head, wrong).schema
    if schema != SCHEMA:
        raise Unreadable(
            f"{path}: schema {schema}, this hotlap reads {SCHEMA}; build it again or use the hotlap that"
            " made it"
        )
    manifest = stored.decode(path, content, Manifest, wrong)
    try:
        case = manifest.parsed()
    except Misuse as error:
        raise Unreadable(f"{path}: {wrong}: {stored.line(error)}") from None
    stated = (manifest.backend, manifest.precision, manifest.batch, manifest.options)
    if stated != (case.backend, case.precision, case.batch, dict(case.options)):
        raise Unreadable(f"{path}: backend, precision, batch or options are not those of its case {case.id}")
    for file in manifest.files:
        if not inside(file.path):
            raise Unreadable(f"{path}: file {printable(file.path)} is not a path within the folder")
    if len({file.path for file in manifest.files}) != len(manifest.files):
        raise Unreadable(f"{path}: a file is listed twice")
    return manifest


def inside(text: str) -> bool:
    """Whether a path of a manifest is a plain relative one, the manifest's own excluded."""
    path = PurePosixPath(text)
    return (
        bool(path.parts)
        and not path.is_absolute()
        and ".." not in path.parts
        and str(path) == text
        and text != FILE
        and "\0" not in text
        and "\\" not in text
    )


def present(folder: Path) -> dict[str, Path]:
    """Every file but the manifest: path within the folder -> path.

    Raises Unreadable for a link or what is no regular file: the folder would not be all there is of
    the model.
    """
    files: dict[str, Path] = {}
    for root, folders, names in os.walk(folder, onerror=_raise):
        for name in [*folders, *names]:
            path = Path(root) / name
            text = path.relative_to(folder).as_posix()
            if path.is_symlink():
                raise Unreadable(
                    f"{folder}: {printable(text)} is a symbolic link; an artefact holds its own files and"
                    " nothing else"
                )
            if name in names and not path.is_file():
                raise Unreadable(f"{folder}: {printable(text)} is no regular file")
            if name in names and text != FILE and not LEFT_BY_PYTHON.fullmatch(text):
                files[text] = path
    return dict(sorted(files.items()))


def compare(folder: Path, manifest: Manifest) -> None:
    """Raises Unreadable, naming the first file that differs, unless the folder holds what the
    manifest lists, byte for byte, and nothing else.
    """
    listed = {file.path: file for file in manifest.files}
    try:
        files = present(folder)
        for name in listed.keys() - files.keys():
            raise Unreadable(f"{folder}: {printable(name)} is missing")
        for name in sorted(files.keys() - listed.keys()):
            raise Unreadable(f"{folder}: {printable(name)} is not in the manifest")
        for name, path in files.items():
            size = path.stat().st_size
            if size != listed[name].bytes:
                raise Unreadable(
                    f"{folder}: {printable(name)} has {size} bytes, {listed[name].bytes} were built; copy the"
                    " artefact again or build it again"
                )
            if digest(path) != listed[name].sha256:
                raise Unreadable(
                    f"{folder}: {printable(name)} has changed since it was built (sha256); copy the artefact"
                    " again or build it again"
                )
    except OSError as error:
        raise Unreadable(f"{error.filename or folder}: {error.strerror}") from None


def files(folder: Path) -> tuple[File, ...]:
    """The files of a folder that was just built; links and what is no regular file are left out."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    named = [(path.relative_to(folder).as_posix(), path) for path in paths]
    return tuple(
        File(name, digest(path), path.stat().st_size)
        for name, path in named
        if name != FILE and not name.endswith(".part") and not LEFT_BY_PYTHON.fullmatch(name)
    )


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def printable(name: str) -> str:
    """A file's name as a message may hold it."""
    return name if name.isprintable() else ascii(name)


def _raise(error: OSError) -> None:
    raise error
