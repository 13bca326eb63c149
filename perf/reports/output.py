"""Where a verdict goes: the terminal, files in the formats that were asked for, GitHub's step
summary.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import msgspec

from ..terms.files import put
from ..terms.reasons import Misuse
from ..terms.verdict import Verdict
from . import formats


def show(verdict: Verdict, to: TextIO) -> None:
    """What a person needs: what did not pass, then the notes, then the verdict as the last line."""
    for finding in verdict.findings:
        if finding.verdict != "pass":
            print(f"- {plain(formats.line(finding))}", file=to)
    for reason in verdict.reasons:
        print(f"note: {plain(reason)}", file=to)
    passed = len(verdict.having("pass"))
    print(
        f"{verdict.tool}: {formats.WORD[verdict.verdict]} ({passed} of {len(verdict.findings)}"
        " findings passed)",
        file=to,
    )


def write(verdict: Verdict, paths: Mapping[str, Path | None], github: bool) -> None:
    """paths: format -> file, - for stdout. Raises Misuse where a file cannot be written."""
    made = {
        "json": lambda: msgspec.json.format(msgspec.json.encode(verdict), indent=1) + b"\n",
        "junit": lambda: formats.junit(verdict),
        "sarif": lambda: formats.sarif(verdict),
        "markdown": lambda: formats.markdown(verdict).encode(),
    }
    for name, path in paths.items():
        if path is None:
            continue
        put(path, made[name]())
    if github:
        for command in formats.workflow_commands(verdict):
            print(command)
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            try:
                with Path(summary).open("a") as file:
                    file.write(formats.markdown(verdict))
            except OSError as error:
                raise Misuse(f"cannot write the step summary {summary}: {error.strerror}") from None


def plain(text: str) -> str:
    """One line without control characters: names come from files, and a CI system may take what a
    line begins with for a command.
    """
    return "".join(char if char.isprintable() else " " for char in text)
