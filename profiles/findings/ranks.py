"""Several ranks of one job: each one's time, and who kept the others waiting.

A collective ends on all its ranks at the same moment, whenever they arrived. So collectives of two
files belong together if they have the same name and process group and end together; where the
clocks of two hosts are apart, the offset that makes most of them end together is taken off. Who
arrived last at a collective held it up, by as much as it came after the second last.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from ...perf.terms.reasons import Unreadable
from ...perf.terms.verdict import Verdict
from ..facts import figures
from ..tables.trace import NONE, Column, Trace
from . import review
from .review import Review

# Ends of one collective on two ranks: this far apart at most, or this share of the shorter one.
TOGETHER_NS = 200_000
TOGETHER = 0.02
# Offsets between clocks are looked for with so many collectives missing at either end; two that fit
# nearly as well are none.
SHIFTS = 3
ALIKE = 0.9
# No job has as many; a larger number is none of a rank.
MOST_RANKS = 1 << 24
# A rank in a file's name.
RANK = re.compile(r"rank[_-]?(\d+)", re.IGNORECASE)
# The files of a folder that are traces.
FILES = ("*.json", "*.json.gz")


class Rank(NamedTuple):
    """One rank, and how it met the others."""

    # Its number in the job.
    number: int
    # Its own trace.
    review: Review
    # ns of its clock to the first rank's; None where that cannot be told.
    offset: int | None
    # How many collectives it has.
    collectives: int
    # How many of them others have too.
    matched: int
    # ns that it waited for those who came later.
    waited: int
    # At how many it was the last.
    last: int
    # ns that this cost.
    held: int


class Ranks(NamedTuple):
    """Several ranks of one job."""

    # In the order of their numbers.
    ranks: list[Rank]
    # How many the job has; None where no file tells.
    world: int | None

    @property
    def straggler(self) -> Rank | None:
        """The rank that cost most; None where none cost anything that can be told."""
        worst = max(self.ranks, key=lambda rank: rank.held)
        return worst if worst.held > 0 else None

    @property
    def verdict(self) -> Verdict:
        whole = all(rank.review.trust.whole for rank in self.ranks)
        notes = tuple(
            f"rank {rank.number}: {note}" for rank in self.ranks for note in rank.review.trust.notes
        )
        return Verdict("review", "pass" if whole else "not_comparable", notes)


def read(folder: Path) -> Ranks:
    """Reads all traces of a folder, one a rank. Raises Unreadable and OSError."""
    files = sorted({file for pattern in FILES for file in folder.glob(pattern)})
    if len(files) < 2:
        raise Unreadable(
            f"{folder}: {len(files)} traces (.json, .json.gz) in this folder; several ranks need one each, a"
            " single trace is given by its own name"
        )
    return of([review.review(file) for file in files])


def of(reviews: Sequence[Review]) -> Ranks:
    """Lays ranks beside each other. Raises Unreadable for two files of one rank, or one of none."""
    numbered: dict[int, Review] = {}
    for side in reviews:
        number = number_of(side.trace)
        if number in numbered:
            raise Unreadable(
                f"{Path(side.trace.path).name} and {Path(numbered[number].trace.path).name} are both of rank"
                f" {number}"
            )
        if side.bound is None:
            what = "a profile of an engine" if len(side.trace.gpu) else "no GPU events"
            raise Unreadable(f"{Path(side.trace.path).name}: {what}, so it cannot be laid beside other ranks")
        numbered[number] = side
    ordered = sorted(numbered.items())
    ends = [collectives(side.trace) for _, side in ordered]
    offsets, groups = matched(ends)
    counts = np.zeros((len(ordered), 4), np.int64)  # matched, waited, last, held
    for group in groups:
        arrived = sorted(
            (int(ends[rank].start[row]) - (offsets[rank] or 0), rank) for rank, row in group.items()
        )
        latest, last = arrived[-1]
        for moment, rank in arrived:
            counts[rank] += (1, latest - moment, rank == last, latest - arrived[-2][0] if rank == last else 0)
    ranks = [
        Rank(number, side, offsets[index], len(ends[index].start), *counts[index].tolist())
        for index, (number, side) in enumerate(ordered)
    ]
    worlds = [
        info.get("world_size")
        for _, side in ordered
        if isinstance(info := side.trace.header.get("distributedInfo"), dict)
    ]
    known = (world for world in worlds if type(world) is int and 0 < world <= MOST_RANKS)
    return Ranks(ranks, next(known, None))


def number_of(trace: Trace) -> int:
    """Returns the rank by the file's own word, else by its name. Raises Unreadable without both."""
    info = trace.header.get("distributedInfo")
    number = info.get("rank") if isinstance(info, dict) else None
    if type(number) is int and 0 <= number < MOST_RANKS:
        return number
    if named := RANK.search(Path(trace.path).name):
        return int(named[1])
    raise Unreadable(
        f"{Path(trace.path).name}: which rank it is of is not recorded; name it rank0.json, rank1.json, ..."
    )


class Collectives(NamedTuple):
    """The collectives of one rank, in the order in which they end."""

    # ns.
    start: Column
    end: Column
    # Name, and process group where the file tells.
    keys: list[tuple[str, bytes]]


def collectives(trace: Trace) -> Collectives:
    own = trace.gpu.rows(trace.gpu.collective == 1)
    own = own.rows(np.argsort(own.end, kind="stable"))
    groups = [trace.groups[code] if code != NONE else b"" for code in own.group.tolist()]
    return Collectives(
        own.start, own.end, list(zip([trace.names[code] for code in own.name.tolist()], groups, strict=True))
    )


class Matched(NamedTuple):
    """Which collectives of several ranks are the same."""

    # ns of each rank's clock to the first one's; None where it cannot be told.
    offsets: list[int | None]
    # Row by rank of each collective that several have.
    groups: list[dict[int, int]]


def matched(ranks: list[Collectives]) -> Matched:
    """Matches the collectives of all ranks.

    Clocks agree unless a rank shares nothing with any other while they do; then they are taken
    to be apart by what makes most of its collectives end with another's.
    """
    offsets: list[int | None] = [0] * len(ranks)
    shared = {
        (a, b): pairs(ranks[a], ranks[b], 0) for a in range(len(ranks)) for b in range(a + 1, len(ranks))
    }
    alone = [
        rank
        for rank in range(1, len(ranks))
        if len(ranks[rank].end) and not any(rows for pair, rows in shared.items() if rank in pair)
    ]
    for rank in alone:
        offsets[rank] = offset = shifted(ranks[0], ranks[rank])
        if offset is not None:
            shared[0, rank] = pairs(ranks[0], ranks[rank], offset)
            for other in range(1, rank):
                if other in alone and (theirs := offsets[other]) is not None:
                    shared[other, rank] = pairs(ranks[other], ranks[rank], offset - theirs)
    groups: dict[tuple[int, int], dict[int, int]] = {}
    for (a, b), rows in shared.items():
        for row, other in rows:
            left, right = groups.get((a, row), {a: row}), groups.get((b, other), {b: other})
            both = {**left, **right}
            # Fewer members than both have: two would be of one rank.
            if left is not right and len(both) == len(left) + len(right):
                for member in both.items():
                    groups[member] = both
    return Matched(offsets, list({id(group): group for group in groups.values()}.values()))


def shifted(first: Collectives, other: Collectives) -> int | None:
    """Returns the offset under which most collectives end together.

    It is None where none does, or where another one does as well (equal periods).
    """
    tried: dict[int, int] = {}
    for shift in range(-SHIFTS, SHIFTS + 1):
        a, b = first.end[max(0, -shift) :], other.end[max(0, shift) :]
        if count := min(len(a), len(b)):
            offset = int(np.median(b[:count] - a[:count]))
            tried[offset] = len(pairs(first, other, offset))
    if not tried or not (most := max(tried.values())):
        return None
    best = [offset for offset, count in tried.items() if count >= max(1, ALIKE * most)]
    return best[0] if max(best) - min(best) <= TOGETHER_NS else None


def pairs(first: Collectives, other: Collectives, offset: int) -> list[tuple[int, int]]:
    """Returns rows of both that end together under the same key: each the other's nearest, nearer
    than half the way to any other end.
    """
    rows = []
    for key in set(first.keys) & set(other.keys):
        a, b = (
            np.array([row for row, name in enumerate(side.keys) if name == key]) for side in (first, other)
        )
        ends, others = first.end[a], other.end[b] - offset
        nearest, back = closest(ends, others), closest(others, ends)
        lengths = np.minimum(ends - first.start[a], (other.end[b] - other.start[b])[nearest])
        allowed = np.minimum(
            TOGETHER_NS, np.maximum(TOGETHER_NS // 10, (TOGETHER * lengths).astype(np.int64))
        )
        together = (back[nearest] == np.arange(len(a))) & (
            np.abs(others[nearest] - ends) <= np.minimum(allowed, period(ends) // 2)
        )
        rows += [(int(a[row]), int(b[nearest[row]])) for row in np.flatnonzero(together).tolist()]
    return rows


def closest(these: Column, those: Column) -> Column:
    """Returns for each of these the index of the nearest of those; both are in order."""
    after = np.clip(np.searchsorted(those, these), 1, max(1, len(those) - 1))
    before = after - 1
    after = np.minimum(after, len(those) - 1)
    return np.where(np.abs(those[before] - these) <= np.abs(those[after] - these), before, after)


def period(ends: Column) -> Column:
    """Returns how far each end is from its nearest neighbour, in ns."""
    gaps = np.diff(ends, prepend=ends[:1] - (1 << 62), append=ends[-1:] + (1 << 62))
    return np.minimum(gaps[:-1], gaps[1:])


def document(ranks: Ranks) -> bytes:
    content = msgspec.to_builtins(ranks.verdict)
    content["world"] = ranks.world
    content["straggler"] = ranks.straggler.number if ranks.straggler else None
    content["ranks"] = [
        {
            "rank": rank.number,
            "file": Path(rank.review.trace.path).name,
            "window_ns": rank.review.facts.line.window,
            "parts_ns": rank.review.bound.parts if rank.review.bound else {},
            "clock_offset_ns": rank.offset,
            "collectives": rank.collectives,
            "matched": rank.matched,
            "waited_ns": rank.waited,
            "last": rank.last,
            "held_ns": rank.held,
            "figures": figures.figures(rank.review.trace),
        }
        for rank in ranks.ranks
    ]
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"
