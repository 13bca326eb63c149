"""Several ranks of one job: each one's time, and who kept the others waiting.

A collective ends on all its ranks at the same moment, whenever they arrived. So collectives of two files belong together if they have the same name and end
together; where the clocks of two hosts are apart, the offset that makes most of them end together is taken off. Who arrived last at a collective held it up,
by as much as it came after the second last.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from ..perf.verdict import Verdict
from . import figures, review
from .events import Unreadable
from .review import Review
from .trace import Column, Trace

# Ends of one collective on two ranks: this far apart at most, or this share of the shorter one.
TOGETHER_NS, TOGETHER = 200_000, 0.02
RANK = re.compile(r"rank[_-]?(\d+)", re.IGNORECASE)
FILES = ("*.json", "*.json.gz")


class Rank(NamedTuple):
    """collectives, matched: how many this rank has, and how many others have too. offset: ns of its clock to the first rank's.

    waited: ns for those who came later. last: at how many it was the last; held: ns that this cost.
    """

    number: int
    review: Review
    offset: int
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
        raise Unreadable(f"{folder}: {len(files)} traces (.json, .json.gz) in this folder; several ranks need one each, a single trace is given by its own name")
    return of([review.review(file) for file in files])


def of(reviews: Sequence[Review]) -> Ranks:
    """Raises Unreadable where two files are of the same rank, or one is of none."""
    numbered: dict[int, Review] = {}
    for at, one in enumerate(reviews):
        number = number_of(one.trace, at)
        if number in numbered:
            raise Unreadable(f"{Path(one.trace.path).name} and {Path(numbered[number].trace.path).name} are both of rank {number}")
        if one.bound is None:
            raise Unreadable(f"{Path(one.trace.path).name}: no GPU events, so it cannot be laid beside other ranks")
        numbered[number] = one
    ordered = sorted(numbered.items())
    ends = [collectives(one.trace) for _, one in ordered]
    offsets, groups = matched(ends)
    counts = np.zeros((len(ordered), 4), np.int64)  # matched, waited, last, held
    for group in groups:
        arrived = sorted((int(ends[rank].start[row]) - offsets[rank], rank) for rank, row in group.items())
        latest, last = arrived[-1]
        for moment, rank in arrived:
            counts[rank] += (1, latest - moment, rank == last, latest - arrived[-2][0] if rank == last else 0)
    found = [Rank(number, one, offsets[at], len(ends[at].start), *counts[at].tolist()) for at, (number, one) in enumerate(ordered)]
    worlds = [info.get("world_size") for _, one in ordered if isinstance(info := one.trace.header.get("distributedInfo"), dict)]
    return Ranks(found, next((world for world in worlds if isinstance(world, int)), None))


def number_of(trace: Trace, otherwise: int) -> int:
    """By the file's own word, else by its name, else by its place."""
    info = trace.header.get("distributedInfo")
    if isinstance(info, dict) and isinstance(info.get("rank"), int):
        return int(info["rank"])
    named = RANK.search(Path(trace.path).name)
    return int(named[1]) if named else otherwise


class Collectives(NamedTuple):
    """Of one rank, in the order in which they end."""

    start: Column
    end: Column
    names: list[str]


def collectives(trace: Trace) -> Collectives:
    own = trace.gpu.rows(trace.gpu.collective == 1)
    own = own.rows(np.argsort(own.end, kind="stable"))
    return Collectives(own.start, own.end, [trace.names[code] for code in own.name.tolist()])


def matched(ranks: list[Collectives]) -> tuple[list[int], list[dict[int, int]]]:
    """The offset of each rank's clock to the first one's, and the collectives that several have: rank -> row."""
    offsets, groups = [0], {row: {0: row} for row in range(len(ranks[0].end))}
    for rank, own in enumerate(ranks[1:], 1):
        count = min(len(own.end), len(ranks[0].end))
        candidates = [0, int(np.median(own.end[:count] - ranks[0].end[:count]))] if count else [0]
        tried = [(pairs(ranks[0], own, offset), offset) for offset in candidates]
        found, offset = max(tried, key=lambda one: len(one[0]))
        offsets.append(offset)
        for first, row in found:
            groups[first][rank] = row
    return offsets, [group for group in groups.values() if len(group) > 1]


def pairs(first: Collectives, other: Collectives, offset: int) -> list[tuple[int, int]]:
    """Rows of both that end together under the same name, each used once."""
    found, used = [], -1
    for row, (end, name) in enumerate(zip(first.end.tolist(), first.names, strict=True)):
        at = max(used + 1, int(np.searchsorted(other.end, end + offset - TOGETHER_NS)))
        for candidate in range(at, len(other.end)):
            apart = int(other.end[candidate]) - offset - end
            shorter = min(end - int(first.start[row]), int(other.end[candidate] - other.start[candidate]))
            if apart > TOGETHER_NS:
                break
            if other.names[candidate] == name and abs(apart) <= max(TOGETHER_NS // 10, min(TOGETHER_NS, TOGETHER * shorter)):
                found.append((row, candidate))
                used = candidate
                break
    return found


def document(found: Ranks) -> bytes:
    content = msgspec.to_builtins(found.verdict)
    content["world"] = found.world
    content["straggler"] = found.straggler.number if found.straggler else None
    content["ranks"] = [
        {
            "rank": rank.number, "file": Path(rank.review.trace.path).name, "window_ns": rank.review.facts.line.window,
            "parts_ns": rank.review.bound.parts if rank.review.bound else {}, "clock_offset_ns": rank.offset, "collectives": rank.collectives,
            "matched": rank.matched, "waited_ns": rank.waited, "last": rank.last, "held_ns": rank.held, "figures": figures.figures(rank.review.trace),
        }
        for rank in found.ranks
    ]  # fmt: skip
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"
