"""Reads files that anybody may have written: whatever is wrong with one is a line that names it,
and no file takes more memory than its kind may.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from .reasons import Misuse, Unreadable

Kind = TypeVar("Kind")
# pytest-benchmark keeps every sample: a suite of small functions has a few hundred MB.
MOST_BYTES = 256 << 20
# A number of things, as every reader of 64 bits can hold it.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
# What a decoder raises for bytes that it cannot use.
UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, MemoryError)
# Levels of nesting in what is kept as it is: it is written at another depth of the stack.
DEEPEST = 64


def content(path: Path, most: int = MOST_BYTES) -> bytes:
    """Returns the bytes of a file, a pipe or a device.

    Raises Misuse where there is none, Unreadable where it cannot be read or has more than `most`.
    """
    try:
        with path.open("rb") as file:
            text = file.read(most + 1)
    except FileNotFoundError:
        raise Misuse(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if len(text) > most:
        raise Unreadable(f"{path}: more than {most >> 20} MiB, which no such file has")
    return text


def member(path: Path, archive: bytes, name: str, most: int) -> bytes:
    """Returns one file of a ZIP archive, wherever in it the file lies; nothing is unpacked.

    Raises Unreadable where the archive is damaged, has no such file or two, or one that unpacks to
    more than `most` bytes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            files = [each for each in opened.infolist() if each.filename.rpartition("/")[2] == name]
            if len(files) != 1:
                raise Unreadable(f"{path}: an archive with {len(files)} files called {name}, not one")
            with opened.open(files[0]) as file:
                text = file.read(most + 1)
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, RuntimeError, zlib.error) as error:
        raise Unreadable(f"{path}: a damaged archive: {line(error)}") from None
    if len(text) > most:
        raise Unreadable(f"{path}: {name} unpacks to more than {most >> 20} MiB")
    return text


def decode(path: Path, text: bytes, kind: type[Kind], wrong: str) -> Kind:
    """Returns what the JSON text of a file holds.

    Raises Unreadable with `wrong`, and why it is no such kind.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except UNDECODABLE as error:
        raise Unreadable(f"{path}: {wrong}: {line(error)}") from None


def line(error: object, most: int = 300) -> str:
    """Returns what an error says as one line: it may quote the file, with whatever is in there."""
    text = " ".join((str(error) or type(error).__name__).split())
    return "".join(char if char.isprintable() else " " for char in text)[:most]


def shallow(value: Any) -> bool:
    """Whether decoded JSON is nested no deeper than DEEPEST."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return True
    return False
