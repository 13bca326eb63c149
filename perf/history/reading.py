"""The points that `hotlap history` judges: results files and folders through the index, and what
of them was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from ..gate.policy import CasePart
from ..terms.files import runs_folder
from ..terms.reasons import Misuse, Unreadable
from ..terms.verdict import Verdict
from .archive import Archive, Point


class StoredPoints(NamedTuple):
    """What the results files hold."""

    # All points, oldest first within a series.
    points: list[Point]
    # Key of a setting -> what two results must share to be compared.
    settings: dict[str, dict[str, str]]
    # Path -> why it is no results file.
    problems: dict[str, str]
    # How many files were looked at.
    files: int
    # How many of them were new or had changed.
    read: int


def read(named: Sequence[Path], index: Path, tell: Callable[[str], None]) -> StoredPoints:
    """Reads results files, and those in folders; without any, the folder of all runs.

    index: the database of what was read before. tell: gets what is being done. Raises Misuse, and
    Unreadable for a named file that holds no results.
    """
    paths = results_files(named or [runs_folder()])
    archive = Archive(index)
    try:
        count, problems = archive.take_in(paths, tell)
        reading = StoredPoints(archive.points(paths), archive.settings(), problems, len(paths), count)
    finally:
        archive.close()
    for path in named:
        if path.is_file() and (why := problems.get(str(path.resolve()))):
            raise Unreadable(f"{path}: {why}")
    return reading


def results_files(places: Sequence[Path]) -> list[Path]:
    """Returns the files named, and below folders all JSON files but those of builds and of hotlap
    ab, whose branches may never be merged. Raises Misuse where a place does not exist.
    """
    sides = (runs_folder() / "ab").resolve()
    files: dict[Path, None] = {}
    for place in places:
        try:
            if not place.exists():
                raise Misuse(f"{place}: there is no such file or folder")
        except OSError as error:
            raise Misuse(f"{place}: {error.strerror}") from None
        if not place.is_dir():
            files[place.resolve()] = None
            continue
        for path in sorted(place.rglob("*.json")):
            built = "work" in path.relative_to(place).parts
            if not built and path.is_file() and not path.resolve().is_relative_to(sides):
                files[path.resolve()] = None
    return list(files)


def wanted(reading: StoredPoints, cases: Sequence[str], metrics: Sequence[str]) -> list[Point]:
    """Returns the points whose case matches one of the globs and whose metric is named; without
    globs or names, all. Raises Misuse where there is none, with the names that there are.
    """
    if not reading.points:
        example = [f", such as {Path(path).name}: {why}" for path, why in reading.problems.items()][:1]
        raise Misuse(f"no results in {reading.files} files{''.join(example)}")
    globs = [CasePart(text) for text in cases]
    points = [
        point
        for point in reading.points
        if (not globs or any(glob.matches(point.case) for glob in globs))
        and (not metrics or point.metric in metrics)
    ]
    if not points:
        known = sorted({point.metric if metrics else point.case for point in reading.points})
        raise Misuse(f"no point in {reading.files} files matches; there are: {', '.join(known[:10])}")
    return points


def noted(verdict: Verdict, reading: StoredPoints) -> Verdict:
    """Returns the verdict with a line on the files that are no results, if there are any."""
    if not reading.problems:
        return verdict
    example = Path(next(iter(reading.problems))).name
    text = f"{len(reading.problems)} of {reading.files} files are no results, such as {example}"
    return msgspec.structs.replace(verdict, reasons=(*verdict.reasons, text))
