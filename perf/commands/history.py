"""`hotlap history`: what stored results say over time; or the change points of a series in a CSV
file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..terms import files

if TYPE_CHECKING:
    from ..history.series import Border, Series
    from ..terms.verdict import Verdict


def history(
    results: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Results files, or folders with any number of them. Default: the folder of all runs."
        ),
    ] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(help="Only cases whose id matches this glob; may be given several times."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Only this metric or counter; may be given several times. Default: all."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with a chart of each series.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the verdict and all series; - is stdout.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the verdict as Markdown.")] = None,
    index: Annotated[
        Path | None,
        typer.Option(help="What was read before. Default: history.sqlite in the folder of all runs."),
    ] = None,
    bisect: Annotated[
        str,
        typer.Option(
            help="Find the commit that made this case slower: git bisect, with hotlap ab as its test.",
            metavar="CASE",
        ),
    ] = "",
    budget: Annotated[str, typer.Option(help="Of each step of --bisect.")] = "3m",
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Instead of results: a file with one measurement a row, oldest first, and a header."
        ),
    ] = None,
    column: Annotated[str, typer.Option(help="The column of --csv with the measurements.")] = "",
) -> int:
    """Find where measurements changed their level for good.

    Exit: 0 no alarm, 1 a confirmed worsening within the last 9 points, 3 could not tell.
    """
    from ..terms.reasons import Misuse, Unreadable

    if csv is not None:
        if results or not column:
            raise Misuse("--csv FILE goes with --column NAME, and without results")
        return of_csv(csv, column, json)
    from ..history import archive, series
    from ..reports.output import write
    from ..terms import units
    from ..terms.files import put

    told = Note()
    paths = found_files(results or [files.runs_folder()])
    store = archive.Archive(index or files.runs_folder() / "history.sqlite")
    try:
        read, problems = store.take_in(paths, told)
        points, settings = store.points(paths), store.settings()
    finally:
        store.close()
    for given in results or []:
        if given.is_file() and (why := problems.get(str(given.resolve()))):
            raise Unreadable(f"{given}: {why}")
    wanted = [
        point for point in points if matches(point.case, case) and (not metric or point.metric in metric)
    ]
    if not points:
        raise Misuse(
            f"no results in {len(paths)} paths"
            + "".join(f", such as {Path(path).name}: {why}" for path, why in list(problems.items())[:1])
        )
    if not wanted:
        known = sorted({point.metric if metric else point.case for point in points})
        raise Misuse(f"no point in {len(paths)} files matches; there are: {', '.join(known[:10])}")
    found, crossed = series.series(wanted, told), series.borders(wanted, settings)
    told.end()
    if bisect:
        from ..history.culprit import hunt

        return hunt([one for one in found if one.case == bisect], bisect, units.seconds(budget), print)
    verdict = series.judge(found)
    if problems:
        verdict = noted(
            verdict,
            f"{len(problems)} of {len(paths)} files are no results, such as"
            f" {Path(next(iter(problems))).name}",
        )
    write(verdict, {"markdown": markdown}, github=False)
    if json is not None:
        put(json, document(verdict, found, crossed, settings, problems))
    if html is not None:
        from ..history.page import page

        put(html, page(verdict, found, crossed).encode())
    if not any(str(path) == "-" for path in (json, html, markdown)):
        show(verdict, found, crossed, f"{len(paths) - len(problems)} files ({read} new)")
    return verdict.exit_status


class Note:
    """Progress on stderr, on one line that goes again, and only for a person."""

    def __call__(self, text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        self("")


def found_files(places: Sequence[Path]) -> list[Path]:
    """The files named, and below folders all JSON files but those of builds and of hotlap ab.

    Raises Misuse.
    """
    from ..terms.files import runs_folder
    from ..terms.reasons import Misuse

    sides = (runs_folder() / "ab").resolve()  # of hotlap ab: of branches that may never be merged
    found: dict[Path, None] = {}
    for place in places:
        if not place.exists():
            raise Misuse(f"{place}: there is no such file or folder")
        below = (
            [
                path
                for path in sorted(place.rglob("*.json"))
                if "work" not in path.relative_to(place).parts and path.is_file()
            ]
            if place.is_dir()
            else [place]
        )
        found |= dict.fromkeys(
            path.resolve() for path in below if not place.is_dir() or not path.resolve().is_relative_to(sides)
        )
    return list(found)


def matches(name: str, globs: Sequence[str] | None) -> bool:
    from ..gate.policy import Part

    return not globs or any(Part(text).matches(name) for text in globs)


def noted(verdict: Verdict, text: str) -> Verdict:
    import msgspec

    return msgspec.structs.replace(verdict, reasons=(*verdict.reasons, text))


def show(verdict: Verdict, found: Sequence[Series], borders: Sequence[Border], files: str) -> None:
    """What has changed, oldest first; then the alarms; then the verdict as the last line."""
    from ..history.series import where
    from ..reports.formats import amount, percent
    from ..reports.output import plain
    from ..reports.output import show as conclude

    for border in borders:
        changed = ", ".join(f"{name} {a} -> {b}" for name, (a, b) in border.changed.items())
        print(
            plain(
                f"  {where(border.at)}: environment of {border.cases} case{'s' if border.cases > 1 else ''}:"
                f" {changed}"
            )
        )
    for one in found:
        for change in one.changes:
            before, after = one.levels(change)
            moved = f"{amount(before, one.points[-1].unit)} -> {amount(after, one.points[-1].unit)}"
            how = "" if one.exact else f" ({percent(1 + change.effect)}, p {change.p:.2g})"
            print(
                plain(
                    f"  {where(one.points[change.index])}: {one.case}: {one.metric}"
                    f" {moved}{how}{', worse' if one.worse(change) else ', better'}"
                )
            )
    conclude(verdict, sys.stdout)
    print(f"{len(found)} series of {len({one.case for one in found})} cases from {files}")


def document(
    verdict: Verdict,
    found: Sequence[Series],
    borders: Sequence[Border],
    settings: dict[str, dict[str, str]],
    problems: dict[str, str],
) -> bytes:
    """DESIGN.md's envelope, so that `hotlap gate --with` takes it, and beside it every series."""
    import msgspec

    content = msgspec.to_builtins(verdict)
    content["series"] = [
        {
            "case": one.case,
            "metric": one.metric,
            "kind": one.points[-1].kind,
            "unit": one.points[-1].unit,
            "better": one.better,
            "setting": one.points[-1].setting,
            "points": [
                {
                    "measured": point.measured,
                    "commit": point.revision,
                    "value": point.value,
                    "centre": point.centre,
                }
                for point in one.points
            ],
            "change_points": one.changes,
            "provisional": one.young,
        }
        for one in found
    ]
    content["settings"] = {one.points[-1].setting: settings[one.points[-1].setting] for one in found}
    content["borders"] = [
        {
            "measured": border.at.measured,
            "commit": border.at.revision,
            "cases": border.cases,
            "changed": border.changed,
        }
        for border in borders
    ]
    content["not_results"] = {Path(path).name: why for path, why in problems.items()}
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


def of_csv(path: Path, column: str, json: Path | None) -> int:
    import msgspec

    from ..stats import changes as detector
    from ..terms.files import put
    from ..terms.reasons import Misuse

    try:
        found = detector.change_points(values(path, column))
    except ValueError as error:
        if isinstance(error, Misuse):
            raise
        raise Misuse(f"{path}: {error}") from None
    if json is None:
        for one in found:
            print(f"row {one.index + 1}: {one.effect:+.1%} (p {one.p:.3g})")
        if not found:
            print("no change of level")
    else:
        content = {"schema": 1, "series": path.name, "column": column, "change_points": found}
        put(json, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    return 0


def values(path: Path, column: str) -> list[float]:
    """The numbers of one column.

    Raises Misuse, with exit status 4 where the file is there and is none.
    """
    import csv

    from ..lookup import plugins
    from ..terms.reasons import Misuse, Unreadable

    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            if column not in (reader.fieldnames or ()):
                raise plugins.Unknown(f"column of {path}", column, reader.fieldnames or ())
            found = []
            for row in reader:
                try:
                    found.append(float(row[column]))
                except (TypeError, ValueError):
                    raise Unreadable(f"{path}: row {reader.line_num} has no number under {column}") from None
            return found
    except FileNotFoundError:
        raise Misuse(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Unreadable(f"{path}: not a CSV file: {error}") from None
