"""What `hotlap kernels` does: build all operations of ours or a kernel of the user's, judge them,
write the tables; or the tables of an earlier build.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import msgspec

from ..compiled import baseline, builds, custom, rules, table
from ..compiled.entries import Entry, Failed
from ..reports.output import known, show
from ..terms import printer
from ..terms.files import put
from ..terms.reasons import Misuse
from ..terms.verdict import Verdict, read


class Paths(NamedTuple):
    """Where a verdict and its tables go; - is stdout, None is not asked for."""

    json: Path | None
    markdown: Path | None
    html: Path | None


def of_stored(stored: Path, markdown: Path | None, html: Path | None) -> int:
    """Writes the tables of what an earlier --json wrote. Returns its exit status.

    Raises Unreadable.
    """
    earlier = table.read(stored)
    if markdown is not None or html is None:
        put(markdown or Path("-"), table.markdown(earlier.kernels, earlier.triton).encode())
    if html is not None:
        put(html, table.page(earlier.kernels, earlier.triton, read(stored)).encode())
    return earlier.exit_status


def of_own(reference: str, signature: str, targets: list[str], warps: int, stages: int, paths: Paths) -> int:
    """Builds a kernel of the user's and judges it by the hard rules. Returns the exit status."""
    entries = custom.build(reference, signature, targets, warps, stages)
    verdict = rules.judge(entries, None, triton_version(), ours=False)
    publish(verdict, entries, paths)
    return verdict.exit_status


def of_all(
    op: str, targets: list[str], all_settings: bool, file: Path | None, accept: bool, paths: Paths
) -> int:
    """Builds our operations whose names match and judges them by the hard rules and a baseline.

    file: of the baseline; default that of this Triton version. accept: makes what was built the
    baseline. Returns the exit status. Raises Misuse, Unreadable.
    """
    version = triton_version()
    path = file or table.BASELINES / f"triton-{version}.json"
    levels = baseline.read(path, required=file is not None and not accept)
    ops = builds.operations(op)
    entries = builds.build(ops, targets, progress, all_settings)
    again = None if levels is None else baseline.built_again(levels, ops, targets, all_settings)
    verdict = rules.judge(entries, again, version, ours=True)
    publish(verdict, entries, paths)
    if not accept:
        return verdict.exit_status
    if any(finding.kind != "counter" and finding.verdict == "regression" for finding in verdict.findings):
        raise Misuse("not accepted: hard rules are broken")
    kept = {key: level for key, level in (levels or {}).items() if key not in (again or {})}
    baseline.store(path, {**kept, **rules.accepted(entries)})
    return 0


def publish(verdict: Verdict, entries: Sequence[Entry | Failed], paths: Paths) -> None:
    """Writes verdict and tables to files, or prints them where none of them goes to stdout."""
    version = triton_version()
    document = {
        **msgspec.to_builtins(verdict),
        "triton": version,
        "kernels": msgspec.to_builtins([entry for entry in entries if isinstance(entry, Entry)]),
    }
    with known(verdict):
        if paths.json is not None:
            put(paths.json, msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
        if paths.markdown is not None:
            put(paths.markdown, table.markdown(entries, version).encode())
        if paths.html is not None:
            put(paths.html, table.page(entries, version, verdict).encode())
    if not any(str(path) == "-" for path in paths):
        for row in table.markdown(entries, version).splitlines():
            printer.line(row)
        show(verdict)


def progress(done: int, total: int) -> None:
    """Counts on one line of stderr, for a person only."""
    printer.counter(f"{done} of {total} compiled" if done < total else "")


def triton_version() -> str:
    return metadata.version("triton")
