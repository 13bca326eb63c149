"""`hotlap review TRACE`: what a profiler trace says, on one screen; as a page; as data; against
another one; of several ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer


def review(
    trace: Annotated[
        Path,
        typer.Argument(
            help=(
                "A trace of torch's profiler (.json, .json.gz, any version, CUDA or ROCm), ONNX Runtime,"
                " OpenVINO or TensorRT; or a folder of ranks."
            )
        ),
    ],
    baseline: Annotated[
        Path | None,
        typer.Argument(help="An earlier trace of the same work: what changed above the noise, and why."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write the verdict and every figure; - is stdout.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page; - is stdout.")] = None,
    perfetto: Annotated[
        Path | None,
        typer.Option(
            help=(
                "Write the trace for ui.perfetto.dev: overlapping kernels side by side, idle gaps with their"
                " culprits."
            )
        ),
    ] = None,
    allow_truncated: Annotated[
        bool,
        typer.Option("--allow-truncated", help="A damaged file is not an error: what is whole is reviewed."),
    ] = False,
) -> int:
    """Say what a profiler trace shows: can it be trusted, where the time goes, what holds it back,
    what to fix. Exit: 0 read, 4 damaged or no trace.

    With BASELINE: 1 if TRACE is worse beyond what repeated runs differ by, 3 if that could not be
    told, 4 if the two cannot be compared.
    """
    import sys

    from ...perf.terms.files import put
    from ...perf.terms.reasons import Misuse, Unreadable
    from ..findings import diff, ranks
    from ..findings import review as reviewing
    from ..pages import text

    def read(path: Path, how: Callable[[Path], Any] = reviewing.review) -> Any:
        try:
            return how(path)
        except FileNotFoundError:
            raise Unreadable(f"{path}: there is no such file") from None
        except OSError as error:
            raise Unreadable(f"{path}: {error.strerror}") from None

    if trace.is_dir():
        if baseline or html or perfetto:
            raise Misuse(
                f"{trace} is a folder of ranks: shown as text and --json; give one rank's file for --html,"
                " --perfetto and BASELINE"
            )
        together = read(trace, ranks.read)
        if json is not None:
            put(json, ranks.document(together))
        if str(json) != "-":
            for line in text.together(together):
                print(line)
        return 0 if allow_truncated else int(together.verdict.exit_status)
    found: reviewing.Review = read(trace)
    compared = None if baseline is None else diff.of(read(baseline), found)
    verdict = found.verdict if compared is None else compared.verdict
    if compared is None and not found.trust.whole and allow_truncated:
        from msgspec.structs import replace

        verdict = replace(verdict, verdict="pass")
    if json is not None:
        put(
            json,
            reviewing.document(found, verdict, {"baseline": diff.document(compared)} if compared else {}),
        )
    if html is not None:
        from ..pages.page import page

        put(html, page(found, compared).encode())
    if perfetto is not None:
        from ..pages.perfetto import write

        if str(perfetto) == "-":
            raise Misuse("--perfetto writes a file; name one")
        if perfetto.exists() and perfetto.samefile(trace):
            raise Misuse(f"{perfetto} is the trace itself; name another file")
        try:
            counts = write(found, perfetto)
        except OSError as error:
            raise Misuse(f"cannot write {perfetto}: {error.strerror}") from None
        print(
            f"{perfetto}: {counts['copied']:,} events, {counts['moved']:,} of them on lanes of their own,"
            f" {counts['added']:,} added",
            file=sys.stderr,
        )
    if "-" not in (str(json), str(html)):
        for line in text.lines(found) if compared is None else text.difference(compared):
            print(line)
    return verdict.exit_status
