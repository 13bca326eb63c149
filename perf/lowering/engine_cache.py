"""TensorRT engines of earlier builds, under $HOTLAP_RUNS/cache/engines (./runs/cache/engines).

An engine is only right for the graph, shapes, precision, flags, library version and architecture
that it was built for; all of them are the key. An entry is a folder that appears as a whole, with
the key's parts beside the engine and its hash: what does not match is not used. Two processes that
build the same entry both go on, the first one's stays. A full disk costs the entry, not the build.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path

import msgspec

from ..terms import files, stored

# What all entries may take on disk: a few hundred engines of the size of a ResNet-50's.
MOST_BYTES = 20 * 10**9
# What the folder of an entry is called until it is whole, and when one of a killed build is old, s.
PART = ".part-"
OLD_S = 24 * 3600.0
# The files of an entry: the engine, and the key and what else is known of it (EngineRecord).
ENGINE = "engine.plan"
ABOUT = "about.json"


class Key(msgspec.Struct, frozen=True):
    """All that an engine depends on."""

    # SHA-256 of the ONNX file and its weights.
    graph: str
    # Input -> smallest, best and largest shape.
    profile: dict[str, tuple[tuple[int, ...], ...]]
    # The case's precision.
    precision: str
    # Settings of the builder.
    flags: dict[str, str]
    # Name and version of the library.
    library: str
    # sm_89, or a device's own name with it.
    architecture: str

    @property
    def digest(self) -> str:
        """The name of the entry's folder: SHA-256 of all fields."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


class EngineRecord(msgspec.Struct, frozen=True):
    """What is known of an engine.

    sha256: of the engine. seconds: what its build took. layers: what the builder said of its
    layers, for the placement.
    """

    key: Key
    sha256: str
    seconds: float
    layers: str


class Cached(msgspec.Struct, frozen=True):
    """An engine out of the cache, and what is known of it."""

    engine: bytes
    entry: EngineRecord


def folder() -> Path:
    """Returns the folder of the cache."""
    return files.runs_folder() / "cache" / "engines"


def graph_digest(files: list[Path]) -> str:
    """Returns the SHA-256 of the model and the weights beside it, by name and content."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.name}:{file.stat().st_size}:".encode())
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def get(key: Key) -> tuple[Cached | None, str]:
    """Returns the engine and empty words, or None and why what is there is not used.

    The words are empty too where there is nothing.
    """
    place = folder() / key.digest
    try:
        entry = msgspec.json.decode((place / ABOUT).read_bytes(), type=EngineRecord)
        engine = (place / ENGINE).read_bytes()
    except FileNotFoundError:
        return None, ""
    except (OSError, *stored.UNDECODABLE) as error:
        return None, f"the cached engine {key.digest[:12]} cannot be read ({stored.line(error)}); built anew"
    if entry.key != key:
        names = ", ".join(differing(entry.key, key))
        return None, f"the cached engine {key.digest[:12]} was built for something else ({names}); built anew"
    if hashlib.sha256(engine).hexdigest() != entry.sha256:
        return None, f"the cached engine {key.digest[:12]} is damaged (its hash is another); built anew"
    with contextlib.suppress(OSError):
        os.utime(place)
    return Cached(engine, entry), ""


def put(key: Key, engine: bytes, seconds: float, layers: str) -> str:
    """Stores an engine. Returns empty words, or why there is no entry now."""
    place = folder() / key.digest
    part: Path | None = None
    try:
        folder().mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=PART, dir=folder()))
        (part / ENGINE).write_bytes(engine)
        entry = EngineRecord(key, hashlib.sha256(engine).hexdigest(), seconds, layers)
        (part / ABOUT).write_bytes(msgspec.json.encode(entry))
        if get(key)[0] is None:
            shutil.rmtree(place, ignore_errors=True)
            with contextlib.suppress(FileExistsError):
                files.appear(part, place)
        trim()
    except OSError as error:
        return f"the engine is not in the cache: {folder()}: {error.strerror or error}"
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
    return ""


def trim() -> None:
    """Removes the entries that were not used for longest, until the rest is within MOST_BYTES, and
    the parts that killed builds left.
    """
    for part in folder().glob(f"{PART}*"):
        with contextlib.suppress(FileNotFoundError):  # another process has put its entry in place
            if part.stat().st_mtime < time.time() - OLD_S:
                shutil.rmtree(part, ignore_errors=True)
    entries = sorted(
        (
            entry
            for entry in folder().iterdir()
            if not entry.name.startswith(".") and entry.is_dir() and not entry.is_symlink()
        ),
        key=lambda entry: entry.stat().st_mtime,
        reverse=True,
    )
    total = 0
    for entry in entries:
        total += sum(file.stat().st_size for file in entry.iterdir())
        if total > MOST_BYTES:
            shutil.rmtree(entry, ignore_errors=True)


def differing(first: Key, second: Key) -> list[str]:
    """Returns the names of the fields in which two keys differ."""
    return [name for name in Key.__struct_fields__ if getattr(first, name) != getattr(second, name)]
