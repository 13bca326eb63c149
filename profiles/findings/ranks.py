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
TOGETHER_NS, TOGETHER = 200_000, 0.02
# Offsets between clocks are looked for with so many collectives missing at either end; two that fit
# nearly as well are none.
SHIFTS, ALIKE = 3, 0.9
MOST_RANKS = 1 << 24
RANK = re.compile(r"rank[_-]?(\d+)", re.IGNORECASE)
FILES = ("*.json", "*.json.gz")


class Rank(NamedTuple):
    """collectives, matched: how many this rank has, and how many others have too.

    offset: ns of its clock to the first rank's; None where that cannot be told.

    waited: ns for those who came later. last: at how many it was the last; held: ns that this cost.
    """

    number: int
    review: Review
    offset: int | None
    collectives: int
    matched: int
    waited: int
    last: int
    held: int


class Ranks(NamedTuple):
    """In the order of their numbers. world: ranks of the job; None where no file tells."""

    ranks: list[Rank]
    world: int | None

    @property
    def straggler(self) -> Rank | None:
        """Who cost most; None where nobody cost anything that can be told."""
        worst = max(self.ranks, key=lambda rank: rank.held)
        return worst if worst.held > 0 else None

    @property
    def verdict(self) -> Verdict:
        whole = all(rank.review.trust.whole for rank in self.ranks)
        said = tuple(f"rank {rank.number}: {said}" for rank in self.ranks for said in rank.review.trust.said)
        return Verdict("review", "pass" if whole else "not_comparable", said)


def read(folder: Path) -> Ranks:
    """All traces of a folder, one a rank. Raises Unreadable and OSError."""
    files = sorted({file for pattern in FILES for file in folder.glob(pattern)})
    if len(files) < 2:
        raise Unreadable(
            f"{folder}: {len(files)} traces (.json, .json.gz) in this folder; several ranks need one each, a"
            " single trace is given by its own name"
        )
    return of([review.review(file) for file in files])


def of(reviews: Sequence[Review]) -> Ranks:
    """Raises Unreadable where two files are of the same rank, or one is of none."""
    numbered: dict[int, Review] = {}
    for one in reviews:
        number = number_of(one.trace)
        if number in numbered:
            raise Unreadable(
                f"{Path(one.trace.path).name} and {Path(numbered[number].trace.path).name} are both of rank"
                f" {number}"
            )
        if one.bound is None:
            what = "a profile of an engine" if len(one.trace.gpu) else "no GPU events"
            raise Unreadable(f"{Path(one.trace.path).name}: {what}, so it cannot be laid beside other ranks")
        numbered[number] = one
    ordered = sorted(numbered.items())
    ends = [collectives(one.trace) for _, one in ordered]
    offsets, groups = matched(ends)
    counts = np.zeros((len(ordered), 4), np.int64)  # matched, waited, last, held
    for group in groups:
        arrived = sorted(
            (int(ends[rank].start[row]) - (offsets[rank] or 0), rank) for rank, row in group.items()
        )
        latest, last = arrived[-1]
        for moment, rank in arrived:
            counts[rank] += (1, latest - moment, rank == last, latest - arrived[-2][0] if rank == last else 0)
    found = [
        Rank(number, one, offsets[at], len(ends[at].start), *counts[at].tolist())
        for at, (number, one) in enumerate(ordered)
    ]
    worlds = [
        info.get("world_size")
        for _, one in ordered
        if isinstance(info := one.trace.header.get("distributedInfo"), dict)
    ]
    return Ranks(
        found, next((world for world in worlds if type(world) is int and 0 < world <= MOST_RANKS), None)
    )


def number_of(trace: Trace) -> int:
    """By the file's own word, else by its name. Raises Unreadable where neither tells."""
    info = trace.header.get("distributedInfo")
    said = info.get("rank") if isinstance(info, dict) else None
    if type(said) is int and 0 <= said < MOST_RANKS:
        return said
    if named := RANK.search(Path(trace.path).name):
        return int(named[1])
    raise Unreadable(
        f"{Path(trace.path).name}: which rank it is of is not recorded; name it rank0.json, rank1.json, ..."
    )


class Collectives(NamedTuple):
    """Of one rank, in the order in which they end.

    key: name, and process group where the file tells.
    """

    start: Column
    end: Column
    keys: list[tuple[str, bytes]]


def collectives(trace: Trace) -> Collectives:
    own = trace.gpu.rows(trace.gpu.collective == 1)
    own = own.rows(np.argsort(own.end, kind="stable"))
    groups = [trace.groups[code] if code != NONE else b"" for code in own.group.tolist()]
    return Collectives(
        own.start, own.end, list(zip([trace.names[code] for code in own.name.tolist()], groups, strict=True))
    )


class Matched(NamedTuple):
    """offsets: of each rank's clock to the first one's; None where it cannot be told.

    groups: collectives that several have: rank -> row.
    """

    offsets: list[int | None]
    groups: list[dict[int, int]]


def matched(ranks: list[Collectives]) -> Matched:
    """Clocks agree unless a rank shares nothing with any other while they do; then they are taken
    to be apart by what makes most of its collectives end with another's.
    """
    offsets: list[int | None] = [0] * len(ranks)
    found = {
        (a, b): pairs(ranks[a], ranks[b], 0) for a in range(len(ranks)) for b in range(a + 1, len(ranks))
    }
    alone = [
        rank
        for rank in range(1, len(ranks))
        if len(ranks[rank].end) and not any(rows for pair, rows in found.items() if rank in pair)
    ]
    for rank in alone:
        offsets[rank] = offset = shifted(ranks[0], ranks[rank])
        if offset is not None:
            found[0, rank] = pairs(ranks[0], ranks[rank], offset)
            for other in range(1, rank):
                if other in alone and (theirs := offsets[other]) is not None:
                    found[other, rank] = pairs(ranks[other], ranks[rank], offset - theirs)
    groups: dict[tuple[int, int], dict[int, int]] = {}
    for (a, b), rows in found.items():
        for row, other in rows:
            left, right = groups.get((a, row), {a: row}), groups.get((b, other), {b: other})
            both = {**left, **right}
            if left is not right and len(both) == len(left) + len(
                right
            ):  # else they would have two of one rank
                for member in both.items():
                    groups[member] = both
    return Matched(offsets, list({id(group): group for group in groups.values()}.values()))


def shifted(first: Collectives, other: Collectives) -> int | None:
    """The offset under which most collectives end together; None where none does, or where another
    one does as well (equal periods).
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
    """Rows of both that end together under the same key: each the other's nearest, nearer than half
    the way to any other end.
    """
    found = []
    for key in set(first.keys) & set(other.keys):
        a, b = (np.array([at for at, one in enumerate(side.keys) if one == key]) for side in (first, other))
        ends, others = first.end[a], other.end[b] - offset
        nearest, back = closest(ends, others), closest(others, ends)
        lengths = np.minimum(ends - first.start[a], (other.end[b] - other.start[b])[nearest])
        allowed = np.minimum(
            TOGETHER_NS, np.maximum(TOGETHER_NS // 10, (TOGETHER * lengths).astype(np.int64))
        )
        together = (back[nearest] == np.arange(len(a))) & (
            np.abs(others[nearest] - ends) <= np.minimum(allowed, period(ends) // 2)
        )
        found += [(int(a[at]), int(b[nearest[at]])) for at in np.flatnonzero(together).tolist()]
    return found


def closest(these: Column, those: Column) -> Column:
    """Of each of these the index of the nearest of those; both in order."""
    after = np.clip(np.searchsorted(those, these), 1, max(1, len(those) - 1))
    before = after - 1
    after = np.minimum(after, len(those) - 1)
    return np.where(np.abs(those[before] - these) <= np.abs(those[after] - these), before, after)


def period(ends: Column) -> Column:
    """How far each is from its nearest neighbour."""
    gaps = np.diff(ends, prepend=ends[:1] - (1 << 62), append=ends[-1:] + (1 << 62))
    return np.minimum(gaps[:-1], gaps[1:])


def document(found: Ranks) -> bytes:
    content = msgspec.to_builtins(found.verdict)
    content["world"] = found.world
    content["straggler"] = found.straggler.number if found.straggler else None
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
        for rank in found.ranks
    ]
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"
