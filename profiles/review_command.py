"""`hotlap review TRACE`: what a profiler trace says, on one screen; as a page; as data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def review(
    trace: Annotated[Path, typer.Argument(help="A trace of torch's profiler (.json, .json.gz, of any version, CUDA or ROCm).")],
    json: Annotated[Path | None, typer.Option(help="Write the verdict and every figure; - is stdout.")] = None,
    allow_truncated: Annotated[bool, typer.Option("--allow-truncated", help="A damaged file is not an error: what is whole is reviewed.")] = False,
) -> int:
    """Say what a profiler trace shows: can it be trusted, where the time goes, what holds it back, what to fix. Exit: 0 read, 4 damaged or no trace."""
    from ..perf.verdict import Unreadable
    from ..perf.verdict_output import put
    from . import review as reviewing
    from . import text
    from .events import Unreadable as NoTrace

    try:
        found = reviewing.review(trace)
    except FileNotFoundError:
        raise Unreadable(f"{trace}: there is no such file") from None
    except OSError as error:
        raise Unreadable(f"{trace}: {error.strerror}") from None
    except NoTrace as error:
        raise Unreadable(str(error)) from None
    verdict = found.verdict
    if not found.trust.whole and allow_truncated:
        from msgspec.structs import replace

        verdict = replace(verdict, verdict="pass")
    if json is not None:
        put(json, reviewing.document(found, verdict, {}))
    if str(json) != "-":
        for line in text.lines(found):
            print(line)
    return verdict.exit_status
