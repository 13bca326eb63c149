"""Prints lines and documents, and keeps the faults of terminals, pipes and disks away from how a
command ends.

Text is made harmless here (escape.py), so that who prints a name need not think of it; tables and
colours leave through reports/console.py, which does the same.
"""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from . import escape


def line(text: str = "") -> None:
    """Prints a line to stdout."""
    print(escape.log(text))


def note(text: str) -> None:
    """Prints a line to stderr: errors and progress, as stdout may be a file of results."""
    print(escape.log(text), file=sys.stderr, flush=True)


def counter(text: str = "") -> None:
    """Replaces the last line of stderr, for a person only; the empty text removes it."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{escape.log(text)}", end="", file=sys.stderr, flush=True)


def commands(texts: Iterable[str]) -> None:
    """Prints lines that the CI system is to obey."""
    for text in texts:
        print(escape.plain(text))


def flush() -> None:
    """Lets what was printed to stdout go first, before another writes to the same file."""
    sys.stdout.flush()


def document(content: bytes) -> None:
    """Writes a file's content to stdout: UTF-8, whatever the terminal's encoding is.

    JSON keeps its meaning to the letter.
    """
    text = content.decode()
    shown = escape.json(text) if text[:1] in ("{", "[") else "\n".join(map(escape.log, text.split("\n")))
    sys.stdout.flush()
    sys.stdout.buffer.write(shown.encode())
    sys.stdout.buffer.flush()


class Standing(io.RawIOBase):
    """A standard stream whose failure is kept and never raised; what follows it goes nowhere."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.descriptor

    def isatty(self) -> bool:
        return os.isatty(self.descriptor)

    def write(self, content: Any) -> int:
        while self.failure is None:
            try:
                return os.write(self.descriptor, content)
            except BlockingIOError:  # another process has made the pipe so
                select.select([], [self.descriptor], [])
            except OSError as error:
                self.failure = error
        return len(content)


def stand() -> None:
    """Makes stdout and stderr streams that nothing can end a command by: not a reader that has
    gone, a full disk, a lost terminal, a stream that was closed from the start, or a character
    that the encoding lacks.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # or a file of ours would get its number
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = standing(1, sys.stdout), standing(2, sys.stderr)


def standing(descriptor: int, opened: TextIO | None) -> io.TextIOWrapper:
    """Returns a stream in the place of one that Python has opened; None: it was closed."""
    raw = Standing(-1 if opened is None else descriptor)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding="utf-8" if opened is None else opened.encoding,
        errors="backslashreplace",
        line_buffering=descriptor == 2 or raw.isatty() or getattr(opened, "write_through", False),
    )


def failure() -> OSError | None:
    """Returns why not all that was printed has reached stdout; None where it has."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, Standing) else None
