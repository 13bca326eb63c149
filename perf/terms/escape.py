"""Text from elsewhere (names, reasons, traces, commits) made harmless for its reader: one function
for each place that it goes to.
"""

from __future__ import annotations

import html
import json as json_strings
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from jinja2 import Template

# Takes the meaning from what it stands in and shows nothing.
ZERO_WIDTH = "&#8203;"


def plain(text: str) -> str:
    """Returns text as one line of printable characters: no control characters (ESC, CSI, newline),
    none that change the direction of writing, no half of a pair.
    """
    return re.sub(r"[^ -~]", lambda match: match[0] if match[0].isprintable() else " ", text)


def log(text: str) -> str:
    """Returns one line for a terminal or the log of a CI job, neither of which finds a command in
    it.

    GitHub takes a line for one that begins with :: after any blanks, or holds ##[; Azure one with
    ##vso[, TeamCity one with ##teamcity[.
    """
    return re.sub(r"(^\s*:(?=:)|#(?=#\w*\[))", r"\1 ", plain(text))


def json(text: str) -> str:
    """Returns a JSON document of the same value that a terminal or a log may show: what `plain` and
    `log` take out of a line is spelt by its code.
    """
    spelt = re.sub(
        r"[^\n -~]",
        lambda match: match[0] if match[0].isprintable() else json_strings.dumps(match[0])[1:-1],
        text,
    )
    return re.sub(r"#(?=#\w*\[)", r"\\u0023", spelt)


def markdown(text: str) -> str:
    """Returns text that stays text in Markdown, in a table and outside: no markup, no HTML, no
    formula, no link, nobody mentioned.

    GitHub looks for @name, #1 and addresses after it has read the backslashes, so a character that
    has no width stands in them.
    """
    text = " ".join(plain(text).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|\[\]~$]|^#|(?<!\w)_|_(?!\w))", r"\\\1", text)
    return re.sub(r"(?i)(?<=[@#])(?=\w)|(?<=:)(?=//)|(?<=www)(?=\.)", ZERO_WIDTH, text)


def xml(text: str) -> str:
    """Returns text for an element or an attribute of XML, SVG or HTML."""
    return html.escape(plain(text))


def page(package: str, name: str) -> Template:
    """Returns a package's HTML template, which escapes every value as `xml` does."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: plain(value) if type(value) is str else value,
    ).get_template(name)


def annotation(text: str, also: str = "") -> str:
    """Returns text for a message of a GitHub workflow command; also: what a property may not hold
    either.
    """
    text = log(text)
    for char in "%" + also:
        text = text.replace(char, f"%{ord(char):02X}")
    return text


def sarif(text: str) -> str:
    """Returns text for a message of SARIF, where [words](address) would be a link."""
    return plain(text).replace("](", "] (")


def uri(path: str) -> str | None:
    """Returns a path as a relative reference (RFC 3986); None where it leaves the repository."""
    parts = PurePosixPath(path)
    if not parts.parts or parts.is_absolute() or ".." in parts.parts:
        return None
    return quote(str(parts), errors="replace")
