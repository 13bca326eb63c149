"""TensorRT engines of earlier builds, under $HOTLAP_RUNS/cache/engines (./runs/cache/engines).

An engine is only right for the graph, shapes, precision, flags, library version and architecture
that it was built for; all of them are the key. An entry is a folder that appears as a whole, with
the key's parts beside the engine and its hash: what does not match is not used. Two processes that
build the same entry both go on, the first one's stays. A full disk costs the entry, not the build.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from ..terms import files

MOST_BYTES = 20 * 10**9
ENGINE, ABOUT = "engine.plan", "about.json"


class Key(msgspec.Struct, frozen=True):
    """graph: sha256 of the ONNX file and its weights.

    profile: input -> smallest, best and largest shape. architecture: sm_89, or a device's own name
    with it.
    """

    graph: str
    profile: dict[str, tuple[tuple[int, ...], ...]]
    precision: str
    flags: dict[str, str]
    library: str
    architecture: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


class Entry(msgspec.Struct, frozen=True):
    """layers: what the builder said of the engine's layers (placement).

    seconds: what the build took when it was made.
    """

    key: Key
    sha256: str
    seconds: float
    layers: str


class Found(msgspec.Struct, frozen=True):
    engine: bytes
    entry: Entry


def folder() -> Path:
    return files.runs_folder() / "cache" / "engines"


def graph_digest(files: list[Path]) -> str:
    """Of the model and the weights beside it, by name and content."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.name}:{file.stat().st_size}:".encode())
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def get(key: Key) -> tuple[Found | None, str]:
    """The entry and empty words, or None and why what is there is not used (empty where there is
    nothing).
    """
    place = folder() / key.digest
    try:
        entry = msgspec.json.decode((place / ABOUT).read_bytes(), type=Entry)
        engine = (place / ENGINE).read_bytes()
    except FileNotFoundError:
        return None, ""
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        return None, f"the cached engine {key.digest[:12]} cannot be read ({error}); built anew"
    if entry.key != key:
        return (
            None,
            (
                f"the cached engine {key.digest[:12]} was built for something else"
                f" ({', '.join(differing(entry.key, key))}); built anew"
            ),
        )
    if hashlib.sha256(engine).hexdigest() != entry.sha256:
        return None, f"the cached engine {key.digest[:12]} is damaged (its hash is another); built anew"
    with contextlib.suppress(OSError):
        os.utime(place)
    return Found(engine, entry), ""


def put(key: Key, engine: bytes, seconds: float, layers: str) -> str:
    """Empty words, or why there is no entry now."""
    place = folder() / key.digest
    part: Path | None = None
    try:
        folder().mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder()))
        (part / ENGINE).write_bytes(engine)
        entry = Entry(key, hashlib.sha256(engine).hexdigest(), seconds, layers)
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
    """Removes those that were not used for longest, until the rest is within MOST_BYTES."""
    entries = sorted(
        (one for one in folder().iterdir() if not one.name.startswith(".")),
        key=lambda one: one.stat().st_mtime,
        reverse=True,
    )
    total = 0
    for one in entries:
        total += sum(file.stat().st_size for file in one.iterdir())
        if total > MOST_BYTES:
            shutil.rmtree(one, ignore_errors=True)


def differing(one: Key, other: Key) -> list[str]:
    mine, theirs = (json.loads(msgspec.json.encode(key)) for key in (one, other))
    fields: dict[str, Any] = mine
    return [name for name in fields if fields[name] != theirs[name]]
