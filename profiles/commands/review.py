"""`hotlap review TRACE`: what a profiler trace says, on one screen; as a page; as data; against
another one; of several ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ...perf.terms import printer

if TYPE_CHECKING:
    from ..findings.review import Review


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
) -> int | None:
    """Say what a profiler trace shows: can it be trusted, where the time goes, what holds it back,
    what to fix. Exit: 0 read, 4 damaged or no trace.

    With BASELINE: 1 if TRACE is worse beyond what repeated runs differ by, 3 if that could not be
    told, 4 if the two cannot be compared.
    """
    if trace.is_dir():
        return review_ranks(trace, baseline, Outputs(json, html, perfetto), allow_truncated)
    return review_file(trace, baseline, Outputs(json, html, perfetto), allow_truncated)


class Outputs(NamedTuple):
    """Files that are written; - is stdout, None is none."""

    json: Path | None
    html: Path | None
    perfetto: Path | None


def review_ranks(folder: Path, baseline: Path | None, outputs: Outputs, allow_truncated: bool) -> int | None:
    """Reviews a folder of ranks; returns the exit status, None where all were read."""
    from ...perf.reports.output import known
    from ...perf.terms.files import put
    from ...perf.terms.reasons import Misuse
    from ..findings import ranks
    from ..pages import text

    if baseline or outputs.html or outputs.perfetto:
        raise Misuse(
            f"{folder} is a folder of ranks: shown as text and --json; give one rank's file for --html,"
            " --perfetto and BASELINE"
        )
    together: ranks.Ranks = read(folder, ranks.read)
    if outputs.json is not None:
        with known(together.verdict):
            put(outputs.json, ranks.document(together))
    if str(outputs.json) != "-":
        for line in text.together(together):
            printer.line(line)
    return None if allow_truncated else together.verdict.exit_status or None


def review_file(trace: Path, baseline: Path | None, outputs: Outputs, allow_truncated: bool) -> int | None:
    """Reviews one trace, alone or against a baseline; returns the exit status, None where there is
    no baseline and the trace was read.
    """
    from msgspec.structs import replace

    from ...perf.reports.output import known
    from ...perf.terms.files import put
    from ..findings import diff
    from ..findings import review as reviewing
    from ..pages import text

    result: reviewing.Review = read(trace, reviewing.review)
    compared = None if baseline is None else diff.of(read(baseline, reviewing.review), result)
    verdict = result.verdict if compared is None else compared.verdict
    if compared is None and not result.trust.whole and allow_truncated:
        verdict = replace(verdict, verdict="pass")
    with known(verdict):
        if outputs.json is not None:
            more = {"baseline": diff.document(compared)} if compared else {}
            put(outputs.json, reviewing.document(result, verdict, more))
        if outputs.html is not None:
            from ..pages.page import page

            put(outputs.html, page(result, compared).encode())
        if outputs.perfetto is not None:
            export(result, trace, outputs.perfetto)
    if "-" not in (str(outputs.json), str(outputs.html)):
        for line in text.lines(result) if compared is None else text.difference(compared):
            printer.line(line)
    return verdict.exit_status if compared else verdict.exit_status or None


def read(path: Path, how: Callable[[Path], Any]) -> Any:
    """Returns what `how` makes of a file or folder. Raises Unreadable with one line."""
    from ...perf.terms.reasons import Unreadable

    try:
        return how(path)
    except FileNotFoundError:
        raise Unreadable(f"{path}: there is no such file") from None
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from None


def export(result: Review, trace: Path, perfetto: Path) -> None:
    """Writes the trace for Perfetto and says on stderr what is in it. Raises Misuse."""
    from ...perf.terms.reasons import Misuse
    from ..pages.perfetto import write

    if str(perfetto) == "-":
        raise Misuse("--perfetto writes a file; name one")
    if perfetto.exists() and perfetto.samefile(trace):
        raise Misuse(f"{perfetto} is the trace itself; name another file")
    try:
        counts = write(result, perfetto)
    except OSError as error:
        raise Misuse(f"cannot write {perfetto}: {error.strerror}") from None
    printer.note(
        f"{perfetto}: {counts['copied']:,} events, {counts['moved']:,} of them on lanes of their own,"
        f" {counts['added']:,} added"
    )
