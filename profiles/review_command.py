"""`hotlap review TRACE`: what a profiler trace says, on one screen; as a page; as data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def review(
    trace: Annotated[Path, typer.Argument(help="A trace of torch's profiler (.json, .json.gz, of any version, CUDA or ROCm).")],
    baseline: Annotated[Path | None, typer.Argument(help="An earlier trace of the same work: what changed above the noise, and why.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the verdict and every figure; - is stdout.")] = None,
    allow_truncated: Annotated[bool, typer.Option("--allow-truncated", help="A damaged file is not an error: what is whole is reviewed.")] = False,
) -> int:
    """Say what a profiler trace shows: can it be trusted, where the time goes, what holds it back, what to fix. Exit: 0 read, 4 damaged or no trace.

    With BASELINE: 1 if TRACE is worse beyond what repeated runs differ by, 3 if that could not be told, 4 if the two cannot be compared.
    """
    from ..perf.verdict import Unreadable
    from ..perf.verdict_output import put
    from . import diff, text
    from . import review as reviewing
    from .events import Unreadable as NoTrace

    def read(path: Path) -> reviewing.Review:
        try:
            return reviewing.review(path)
        except FileNotFoundError:
            raise Unreadable(f"{path}: there is no such file") from None
        except OSError as error:
            raise Unreadable(f"{path}: {error.strerror}") from None
        except NoTrace as error:
            raise Unreadable(str(error)) from None

    found = read(trace)
    verdict = found.verdict
    if baseline is not None:
        compared = diff.of(read(baseline), found)
        if json is not None:
            put(json, reviewing.document(found, compared.verdict, {"baseline": diff.document(compared)}))
        if str(json) != "-":
            for line in text.difference(compared):
                print(line)
        return compared.verdict.exit_status
    if not found.trust.whole and allow_truncated:
        from msgspec.structs import replace

        verdict = replace(verdict, verdict="pass")
    if json is not None:
        put(json, reviewing.document(found, verdict, {}))
    if str(json) != "-":
        for line in text.lines(found):
            print(line)
    return verdict.exit_status
