"""What a results file holds before anybody knows whose it is: its top level, and how a reader of
one tool takes it apart.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ..terms import stored
from ..terms.reasons import Unreadable

Kind = TypeVar("Kind")
# What Python's json writes and no JSON knows; strings are matched so that they stay as they are.
NO_NUMBER = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\bInfinity\b|\bNaN\b')
# How many bytes from the start show whose a damaged file is.
SHOWING = 1 << 20


@dataclass(frozen=True)
class Contents:
    """A file that has been read and not yet understood."""

    path: Path
    text: bytes
    # Top level of a JSON object; empty where it is none.
    fields: dict[str, msgspec.Raw] = field(default_factory=dict)
    # Elements of a JSON array; empty where it is none.
    items: list[msgspec.Raw] = field(default_factory=list)
    # Why it is neither.
    problem: str = ""

    @property
    def start(self) -> bytes:
        return self.text[:SHOWING]

    @cached_property
    def lines(self) -> list[bytes]:
        return self.text.splitlines()

    def decode(self, kind: type[Kind], part: bytes | msgspec.Raw | None = None) -> Kind:
        """Returns the file, or a part of it, as this kind. Raises Unreadable."""
        try:
            return msgspec.json.decode(self.text if part is None else part, type=kind)
        except stored.UNDECODABLE as error:
            raise Unreadable(f"{self.path}: {stored.line(error)}") from None

    def part(self, kind: type[Kind], name: str, default: Kind) -> Kind:
        """Returns a field of the top level, or the default without it. Raises Unreadable."""
        return self.decode(kind, self.fields[name]) if name in self.fields else default

    def first(self, name: str) -> dict[str, msgspec.Raw]:
        """Returns the fields of the first element of a list of the top level; none if it is no
        object.
        """
        try:
            elements = msgspec.json.decode(self.fields[name], type=list[msgspec.Raw])
        except (KeyError, *stored.UNDECODABLE):
            return {}
        return fields_of(elements[0]) if elements else {}


def fields_of(part: msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Returns the fields of a JSON object; none if it is something else."""
    try:
        return msgspec.json.decode(part, type=dict[str, msgspec.Raw])
    except stored.UNDECODABLE:
        return {}


def numbers(fields: Mapping[str, Any]) -> dict[str, float]:
    """Returns what of an object is a number that a float can hold."""
    values = {}
    for name, value in fields.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):
                values[name] = float(value)
    return values


def contents(path: Path) -> Contents:
    """Reads a file. Raises Misuse where there is none, Unreadable where it cannot be read.

    NaN and Infinity, which some tools write, are null in what comes back.
    """
    text = stored.content(path)
    if b"NaN" in text or b"Infinity" in text:
        text = NO_NUMBER.sub(lambda match: match[0] if match[0].startswith(b'"') else b"null", text)
    try:
        if text.lstrip()[:1] == b"[":
            return Contents(path, text, items=msgspec.json.decode(text, type=list[msgspec.Raw]))
        return Contents(path, text, msgspec.json.decode(text, type=dict[str, msgspec.Raw]))
    except stored.UNDECODABLE as error:
        return Contents(path, text, problem=stored.line(error))
