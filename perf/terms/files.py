"""Writes files and folders that appear whole or not at all, and says where runs live."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from . import printer
from .reasons import Misuse


def runs_folder() -> Path:
    """Returns the folder where runs live: $HOTLAP_RUNS, else ./runs."""
    return Path(os.environ.get("HOTLAP_RUNS", "runs"))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the path of a part to write, which gets the name `path` when all of it is on the disk.

    No reader ever sees half of it, and whatever ends the writing leaves the old file. Raises
    OSError.
    """
    part = path.with_name(path.name + ".part")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Yields a file to write to, which replaces the one at `path` as a whole. Raises OSError."""
    with replacing(path) as part, part.open("wb") as file:
        yield file


def write(path: Path, content: bytes) -> None:
    """Replaces the file at `path` as a whole, or leaves the old one. Raises OSError."""
    with whole(path) as file:
        file.write(content)


def put(path: Path, content: bytes) -> None:
    """Writes to the file as a whole, or to stdout for -. Raises Misuse."""
    if str(path) == "-":
        printer.document(content)
        return
    try:
        write(path, content)
    except (OSError, ValueError) as error:
        raise Misuse(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None


def appear(part: Path, folder: Path) -> None:
    """Gives a folder that is complete its name.

    Raises FileExistsError where another process was faster (rename(2): ENOTEMPTY).
    """
    try:
        part.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        raise FileExistsError(folder) from None
