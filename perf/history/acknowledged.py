"""Alarms that somebody has seen and accepts: a history.toml, checked as a whole; a name that it
does not know is an error.

Its keys stand in docs/gate.md.
"""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from ..gate.policy import CasePart
from ..terms import stored
from ..terms.reasons import Misuse
from .archive import Point

# The acknowledgements that hotlap history takes where it is not told others.
FILE = Path("history.toml")
# Thousands of entries fit.
MOST_BYTES = 1 << 20
# As git abbreviates them: fewer digits match commits that nobody meant.
Commit = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{7,64}$")]
# Digits of a commit in an entry that hotlap writes.
DIGITS = 12


class Acknowledgement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One [[acknowledged]]: an alarm by the first point of its new level, and why it is accepted.

    case: a glob, in which [ means itself. commit: its first digits. date: in UTC.
    """

    case: str
    metric: str
    reason: str
    commit: Commit | None = None
    date: datetime.date | None = None

    def __post_init__(self) -> None:
        if (self.commit is None) == (self.date is None):
            raise Misuse(f"acknowledged case = {self.case!r} needs either a commit or a date")
        if not self.reason.strip():
            raise Misuse(f"acknowledged case = {self.case!r} needs a reason")

    def matches(self, point: Point) -> bool:
        """Whether it means the alarm whose new level begins with this point."""
        when = day(point) == self.date if self.commit is None else point.revision.startswith(self.commit)
        return when and point.metric == self.metric and CasePart(self.case).matches(point.case)


class Acknowledgements(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A history.toml; its field name is the file's key."""

    acknowledged: tuple[Acknowledgement, ...] = ()

    def reason(self, point: Point) -> str:
        """Returns why the alarm whose new level begins with this point is accepted; nothing where
        it is not.
        """
        return next((entry.reason for entry in self.acknowledged if entry.matches(point)), "")

    def idle(self, points: Sequence[Point]) -> list[str]:
        """Returns a line for each entry that matches none of the alarms that begin with these
        points.
        """
        return [
            f"acknowledged case = {entry.case!r}, {entry.metric}, {entry.commit or entry.date} matches no"
            " alarm: mistyped, or no longer needed"
            for entry in self.acknowledged
            if not any(map(entry.matches, points))
        ]


def entry(point: Point) -> tuple[str, ...]:
    """Returns the lines of history.toml that acknowledge the alarm whose new level begins with this
    point, but for the reason. What a name holds that cannot be printed is any character.
    """
    commit = re.match(r"[0-9a-f]{7,64}", point.revision)
    when = f'commit = "{commit[0][:DIGITS]}"' if commit else f"date = {day(point)}"
    return (
        "[[acknowledged]]",
        f"case = {quoted(point.case)}",
        f"metric = {quoted(point.metric)}",
        when,
        'reason = ""  # why it is meant',
    )


def quoted(name: str) -> str:
    """Returns a name as a string of TOML."""
    printable = re.sub(r"[^ -~]", lambda match: match[0] if match[0].isprintable() else "?", name)
    return json.dumps(printable, ensure_ascii=False)


def day(point: Point) -> datetime.date:
    return datetime.datetime.fromtimestamp(point.measured, datetime.UTC).date()


def chosen(path: Path | None) -> Acknowledgements:
    """Returns what --acknowledged names; without it history.toml here, if there is one.

    Raises Misuse with the place in the file.
    """
    if path is None and not os.path.lexists(FILE):
        return Acknowledgements()
    path = path or FILE
    content = stored.content(path, MOST_BYTES)
    try:
        return msgspec.toml.decode(content, type=Acknowledgements)
    except msgspec.ValidationError as error:
        # msgspec wraps what __post_init__ raised.
        reason = error.__cause__ if isinstance(error.__cause__, Misuse) else error
        raise Misuse(f"{path}: no acknowledgements: {stored.line(reason)}") from None
    except (*stored.UNDECODABLE, ValueError) as error:
        raise Misuse(f"{path}: no acknowledgements: {stored.line(error)}") from None
