"""Writes files and folders that appear whole or not at all, and says where runs live.

A path that the user typed is written as other tools do it (`output`): through a link, and in place
where it names a device or a FIFO. A file or folder of our own (`write`, `clear`) is never reached
through a link: whoever may write to a run's folder could send us anywhere by one.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .reasons import Misuse

# Links that the kernel follows one after another (path_resolution(7)).
MOST_LINKS = 40
# What a part begins and ends with; one stays where a process was killed.
PART = (".hotlap-", ".part")


def runs_folder() -> Path:
    """Returns the folder where runs live: $HOTLAP_RUNS, else ./runs."""
    return Path(os.environ.get("HOTLAP_RUNS", "runs"))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the path of a part to write, which gets the name `path` when all of it is on the disk.

    No reader ever sees half of it, and whatever ends the writing leaves the old file. A link of
    that name is replaced, not followed. Raises OSError.
    """
    part = path.with_name(secrets.token_hex(8).join(PART))
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """Yields a file to write to, which replaces the one at `path` as a whole. Raises OSError."""
    with replacing(path) as part, part.open("wb") as file:
        yield file


def write(path: Path, content: bytes) -> None:
    """Replaces a file of our own as a whole, or leaves the old one. Raises OSError."""
    with _whole(path) as file:
        file.write(content)


@contextmanager
def output(path: Path) -> Iterator[BinaryIO]:
    """Yields what to write to for a path that the user typed.

    A file is replaced as a whole; where the path is a link, the link stays and the file that it
    points to is replaced. What is no file (a device, a FIFO) is written in place, and so is what
    this process has open already (/dev/stdout). Raises OSError.
    """
    number = descriptor(path)
    if number is not None:
        sys.stdout.flush()
        with os.fdopen(os.dup(number), "wb", buffering=0) as file:
            yield file
        return
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if stat.S_ISREG(mode):
        with _whole(Path(os.path.realpath(path))) as file:
            yield file
    else:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC), "wb") as file:
            yield file


def descriptor(path: Path) -> int | None:
    """Returns the number of the open file of this process that a path stands for, None for others.

    Such a path leads to a file's own name too, but who replaces that file takes it away from the
    shell that opened it.
    """
    open_files = (f"/proc/{os.getpid()}/fd", "/dev/fd")
    for _ in range(MOST_LINKS):
        if os.path.realpath(path.parent) in open_files and path.name.isdecimal():
            return int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None


def put(path: Path, content: bytes) -> None:
    """Writes to a file that the user typed, or to stdout for -. Raises Misuse."""
    if str(path) == "-":
        sys.stdout.write(content.decode())
        return
    try:
        with output(path) as file:
            file.write(content)
    except (OSError, ValueError) as error:
        raise Misuse(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None


def appended(path: Path) -> BinaryIO:
    """Opens a file of our own for appending, unbuffered, no link followed. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0)


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


def clear(folder: Path, below: Path) -> None:
    """Removes a folder of our own with all that is in it; of one that something is mounted in, the
    folders stay.

    Raises Misuse where a file stays, or where a link stands on the way to it from the folder
    `below`.
    """
    on_the_way = [folder, *folder.parents]
    for path in reversed(on_the_way[: on_the_way.index(below)]):
        refuse_link(path)
    shutil.rmtree(folder, ignore_errors=True)
    for path in [folder, *folder.rglob("*")]:
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise Misuse(f"cannot remove {path}, which an earlier run left; remove it")


def refuse_links(folder: Path, *names: str) -> None:
    """Raises Misuse where one of these in a folder, or what lies in one, is a symbolic link."""
    for path in (folder / name for name in names):
        refuse_link(path)
        for inner in sorted(path.iterdir()) if path.is_dir() else ():
            refuse_link(inner)


def refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise Misuse(f"{path} is a symbolic link, and links are not followed here; remove it")
