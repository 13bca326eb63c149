"""Where a verdict goes: the terminal, files in the formats that were asked for, GitHub's step
summary.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ..terms import printer
from ..terms.files import put
from ..terms.reasons import Misuse
from ..terms.verdict import Verdict
from . import formats


def publish(verdict: Verdict, paths: Mapping[str, Path | None], github: bool) -> bool:
    """Writes a verdict as `write` does, and shows it on stdout where no file of it goes there.

    Returns whether it was shown. Raises Misuse where a file cannot be written.
    """
    shown = not any(str(path) == "-" for path in paths.values())
    try:
        with known(verdict):
            write(verdict, paths, github)
    finally:
        if shown:
            show(verdict)
    return shown


@contextmanager
def known(verdict: Verdict) -> Iterator[None]:
    """Lets a regression stay one where a file of the verdict cannot be written."""
    try:
        yield
    except Misuse as error:
        if verdict.verdict == "regression":
            error.exit_code = verdict.exit_status
        raise


def show(verdict: Verdict) -> None:
    """Prints what a person needs: what did not pass, then the notes, then the verdict as the last
    line.
    """
    for finding in verdict.findings:
        if finding.verdict != "pass":
            printer.line(f"- {formats.line(finding)}")
    for reason in verdict.reasons:
        printer.line(f"note: {reason}")
    passed = len(verdict.having("pass"))
    printer.line(
        f"{verdict.tool}: {formats.WORD[verdict.verdict]} ({passed} of {len(verdict.findings)}"
        " findings passed)"
    )


def write(verdict: Verdict, paths: Mapping[str, Path | None], github: bool) -> None:
    """Writes a verdict to files, and for GitHub prints its annotations and appends to its summary.

    paths: format -> file; - is stdout, None is not asked for. Raises Misuse where a file cannot be
    written.
    """
    formatted = {
        "json": lambda: msgspec.json.format(msgspec.json.encode(verdict), indent=1) + b"\n",
        "junit": lambda: formats.junit(verdict),
        "sarif": lambda: formats.sarif(verdict),
        "markdown": lambda: formats.markdown(verdict).encode(),
    }
    for name, path in paths.items():
        if path is None:
            continue
        put(path, formatted[name]())
    if github:
        printer.commands(formats.workflow_commands(verdict))
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            try:
                with Path(summary).open("a", encoding="utf-8") as file:
                    file.write(formats.markdown(verdict))
            except OSError as error:
                raise Misuse(f"cannot write the step summary {summary}: {error.strerror}") from None
