"""Why something did not happen: the closed list of reasons that every status but ok carries, and
the exceptions that carry words for the user.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Literal, get_args

import msgspec

# A closed list, so that tools can tell reasons apart without reading the detail.
Code = Literal[
    "no_device",
    "unsupported_target",
    "unsupported_op",
    "unsupported_precision",
    "dep_missing",
    "dep_conflict",
    "accuracy",
    "nondeterministic",
    "stale_output",
    "unmeasured_work",
    "wrong_provider",
    "oom",
    "out_of_space",
    "timeout",
    "crashed",
    "interrupted",
    "invalid_input",
    "export_failed",
    "build_failed",
    "not_steady",
    "wide_interval",
    "not_tried",
]
CODES: tuple[str, ...] = get_args(Code)
# Of outputs or a time that cannot be believed: they carry no time, and an artefact is not opened.
WRONG: tuple[Code, ...] = ("accuracy", "stale_output", "nondeterministic", "unmeasured_work")


class Reason(msgspec.Struct, frozen=True):
    """A code from the closed list and one line for the reader: what is wrong, where, what to do."""

    code: Code
    detail: str

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class Misuse(ValueError):
    """Raised for what the user can mend; the message is one line: what is wrong, where, what to do.

    The command line exits with exit_code.
    """

    exit_code = 2


class Unreadable(Misuse):
    """Raised for a file that is there and cannot be used: damaged, of another kind or version."""

    exit_code = 4


class Refusal(Exception):
    """Raised where a case cannot go on; carries the reason that its result will have."""

    def __init__(self, code: Code, detail: str) -> None:
        """Joins the detail to one line."""
        self.reason = Reason(code, " ".join(detail.split()))
        super().__init__(str(self.reason))


def full(error: BaseException) -> Reason | None:
    """Returns the reason if an exception of any library says that a disk is full or a quota used
    up; None otherwise. Libraries in C++ say it in words only.
    """
    by_number = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if not by_number and "No space left on device" not in str(error):
        return None
    return Reason(
        "out_of_space",
        f"{getattr(error, 'filename', None) or 'the disk'} is full; free space or choose another --out",
    )


@contextlib.contextmanager
def room() -> Iterator[None]:
    """Raises Refusal(out_of_space) where what runs inside fills a disk."""
    try:
        yield
    except OSError as error:
        if (reason := full(error)) is None:
            raise
        raise Refusal(reason.code, reason.detail) from error
