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
from ..terms.verdict import ORDER, Verdict
from . import formats

# Measurements that could not be told, and those that became better, which are shown one by one.
MOST_UNKNOWN = 5
MOST_GAINS = 5


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
    """Prints what a person needs: what did not pass, the worst first, and what would acknowledge
    it; what was acknowledged; what became better, then the notes, then the verdict as the last
    line.
    """
    for text in failures(verdict):
        printer.line(f"- {text}")
    if meant := formats.entries(verdict):
        printer.line("  to acknowledge what is meant, in history.toml:")
    for text in meant:
        printer.line(f"    {text}")
    for finding in verdict.findings:
        if finding.acknowledged:
            printer.line(f"= {formats.line(finding)}")
    for text in gains(verdict):
        printer.line(f"+ {text}")
    for reason in verdict.reasons:
        printer.line(f"note: {reason}")
    passed = len(verdict.having("pass"))
    printer.line(
        f"{verdict.tool}: {formats.WORD[verdict.verdict]} ({passed} of {len(verdict.findings)}"
        " findings passed)"
    )


def failures(verdict: Verdict) -> Iterator[str]:
    """Yields a line for each finding that did not pass, the worst first; of many measurements that
    could not be told, the first, and one line for the rest.
    """
    unknown = [finding for finding in verdict.having("inconclusive") if finding.kind == "time"]
    hidden = {id(finding) for finding in unknown[MOST_UNKNOWN:]}
    for outcome in reversed(ORDER[1:]):
        for finding in verdict.having(outcome):
            if id(finding) not in hidden:
                yield formats.line(finding)
    if rest := unknown[MOST_UNKNOWN:]:
        sizes = sorted(finding.detectable for finding in rest if finding.detectable is not None)
        seen = f": worsenings of {sizes[0]:.1%} to {sizes[-1]:.1%} would have been seen" if sizes else ""
        yield f"{len(rest)} more could not be told{seen}"


def gains(verdict: Verdict) -> Iterator[str]:
    """Yields a line for each measurement that is surely better, the first of many."""
    better = [
        finding for finding in verdict.having("pass") if finding.kind == "time" and formats.improved(finding)
    ]
    yield from (formats.line(finding) for finding in better[:MOST_GAINS])
    if len(better) > MOST_GAINS:
        yield f"{len(better) - MOST_GAINS} more became better"


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
