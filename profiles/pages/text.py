"""A review on a terminal."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from ...perf.reports.formats import WORD
from ...perf.reports.output import plain
from ...perf.terms.units import scaled
from ..facts import roofline
from ..findings.diff import Diff
from ..findings.ranks import Ranks
from ..findings.review import Review, Row
from ..tables import captured

BAR = 60
MARKS = {
    "compute": "█",
    "exposed comm": "▓",
    "exposed copies": "▒",
    "input": "i",
    "sync": "s",
    "setup": "m",
    "launch": "l",
    "kernel wait": "·",
    "other": "o",
    "unknown": "?",
}
WIDTH, CODE = 100, 80
FIXES = 3


def lines(found: Review) -> Iterator[str]:
    """Yields the screen's lines, in the order in which a reader asks (docs/traces.md, Reading)."""
    trace, facts = found.trace, found.facts
    yield plain(
        f"{Path(trace.path).name}: {machine(found)}, {trace.events:,} events, {len(trace.gpu):,} on the GPU"
    )
    yield f"trust     {trusted(found)}"
    for said in found.trust.said:
        yield plain(f"          - {said}")
    if found.bound is None:
        yield from without_window(found)
        return
    if facts.steps:
        yield f"step      {stepped([step.dur for step in facts.steps])}"
    window = facts.line.window
    yield f"window    {ns(window)}: {shares_of(found.bound.parts, window)}"
    yield f"          {bar(found.bound.parts, window)}"
    yield f"bound     {found.bound.word} ({found.bound.share:.0%} of the window): {found.bound.meaning}"
    if found.culprits:
        yield "idle      what the host did meanwhile:"
        for one in found.culprits[:5]:
            yield plain(
                f"          {ns(one.length):>10} {one.length / max(1, facts.line.idle):5.1%}  {one.blame}:"
                f" {cut(one.label)} ({one.gaps:,} gaps)"
            )
    yield from fixes(found)
    yield from table("operators", found.operators, roofline.by_operator(found.attained))
    yield from table("kernels", found.kernels)
    if found.peak_bytes is None:
        yield "memory    not known (profile_memory=True records it)"
    else:
        yield f"memory    at most {scaled(found.peak_bytes, 'B')} allocated"


def shares_of(parts: Mapping[str, int], whole: int) -> str:
    """The parts that are not empty, each as a share of the whole."""
    return ", ".join(f"{part} {length / whole:.1%}" for part, length in parts.items() if length)


def fixes(found: Review) -> Iterator[str]:
    facts = found.facts
    if found.bound is None and not found.fixes:
        return
    yield "fixes     " + (
        "each with what it can bring at most; they overlap" if found.fixes else "no rule found its evidence"
    )
    for number, fix in enumerate(found.fixes[:FIXES], 1):
        yield plain(
            f"          {number}. {fix.title}: at most {ns(fix.ceiling)} of {ns(facts.span)}"
            f" ({fix.ceiling / max(1, facts.span):.0%})"
        )
        for said in fix.evidence:
            yield plain(f"             {said}")
        yield plain(f"             {fix.advice}")
        if fix.code:
            yield plain(f"             in {'; '.join(cut(one, CODE) for one in fix.code)}")


def difference(found: Diff) -> Iterator[str]:
    """Two traces: the verdict, then what moved and why."""
    base, head = found.base, found.head
    for name, side in (("BASE", base), ("HEAD", head)):
        steps = f"{len(side.facts.steps)} step{'' if len(side.facts.steps) == 1 else 's'}"
        yield plain(
            f"{name}      {Path(side.trace.path).name}: {machine(side)},"
            f" {steps}{f'; bound by {side.bound.word}' if side.bound else ''}"
        )
    for one in found.verdict.findings:
        yield (
            f"{one.metric:9} {ns((one.base or 0) * 1e9)} -> {ns((one.head or 0) * 1e9)} a {found.per},"
            f" {(one.ratio or 1) - 1:+.1%}: {WORD[one.verdict]}"
        )
    for reason in found.verdict.reasons:
        yield plain(f"note      {reason}")
    if found.because:
        yield plain(f"so        {found.because}")
    for title, rows in (
        ("kinds", found.kinds),
        ("parts", found.parts),
        ("operators", found.operators),
        ("kernels", found.kernels),
        ("idle", found.idle),
    ):
        shown = [row for row in sorted(rows, key=lambda row: -abs(row.change)) if row.change][:6]
        for number, row in enumerate(shown):
            sign = "+" if row.change > 0 else "-"
            yield plain(
                f"{title if not number else '':9} {sign}{ns(abs(row.change)):>9}  {ns(row.before):>9} ->"
                f" {ns(row.after):>9}  {cut(row.where)}{row.times}"
            )
    yield f"review: {WORD[found.verdict.verdict]}"


def machine(found: Review) -> str:
    """The GPU, or what else the file knows of where it was taken."""
    origin = captured.of(found.trace)
    words = [
        found.trace.gpu_name if len(found.trace.gpu) or found.trace.device else "no GPU",
        origin.case if origin else "",
        origin.hardware if origin else "",
    ]
    return ", ".join(cut(word, 2 * WIDTH) for word in words if word)


def together(found: Ranks) -> Iterator[str]:
    """Several ranks: each one's window, and who kept the others waiting."""
    world = f" of {found.world}" if found.world else ""
    shared = sum(rank.matched for rank in found.ranks)
    yield (
        f"ranks     {len(found.ranks)}{world}; {shared:,} of"
        f" {sum(rank.collectives for rank in found.ranks):,} collectives are in several of these files"
    )
    for rank in found.ranks:
        window, parts = rank.review.facts.line.window, rank.review.bound.parts if rank.review.bound else {}
        shares = ", ".join(
            f"{part} {length / max(1, window):.1%}" for part, length in parts.items() if length
        )
        yield plain(
            f"rank {rank.number:<4} {Path(rank.review.trace.path).name}: window {ns(window)}: {shares}"
        )
        if rank.matched:
            yield (
                f"          waited {ns(rank.waited)} for others; the last at {rank.last:,} of"
                f" {rank.matched:,} shared collectives, which cost {ns(rank.held)}"
            )
        if rank.offset is None:
            yield (
                "          how far its clock is from the others' cannot be told: none of its collectives ends"
                " with one of theirs, or several offsets fit alike"
            )
        elif rank.offset:
            yield (
                f"          its clock is {ns(rank.offset)} ahead of the first one's, by where collectives end"
            )
    if (late := found.straggler) is not None:
        yield plain(
            f"straggler rank {late.number}: without it the others would have gone on {ns(late.held)} earlier;"
            f" why: hotlap review {late.review.trace.path}"
        )
    elif shared:
        yield "straggler none"
    else:
        yield "straggler not known: no collective of these files ends at the same time under the same name"
    for said in found.verdict.reasons:
        yield plain(f"note      {said}")


def trusted(found: Review) -> str:
    grades: dict[str, list[str]] = {}
    for name, grade in found.trust.grades.items():
        grades.setdefault(grade, []).append(name)
    return "; ".join(f"{grade}: {', '.join(names)}" for grade, names in grades.items())


def stepped(steps: list[int]) -> str:
    middle = statistics.median(steps)
    if len(steps) == 1:
        return f"{ns(middle)} (1 step: nothing is known of its steadiness)"
    return (
        f"{ns(middle)} (median of {len(steps)}), {ns(min(steps))} to {ns(max(steps))}, slowest"
        f" {max(steps) / middle:.2f}x"
    )


def bar(parts: dict[str, int], window: int) -> str:
    """A character a sixtieth, rounded by the largest remainder: the bar is always as long."""
    if not window:
        return ""
    exact = {part: BAR * length / window for part, length in parts.items()}
    width = {part: int(value) for part, value in exact.items()}
    for part in sorted(exact, key=lambda one: width[one] - exact[one])[: BAR - sum(width.values())]:
        width[part] += 1
    return (
        "".join(MARKS[part] * count for part, count in width.items())
        + "  "
        + " ".join(f"{MARKS[part]} {part}" for part, length in parts.items() if width[part])
    )


def table(title: str, rows: list[Row], shares: Mapping[str, float] = MappingProxyType({})) -> Iterator[str]:
    """shares: of the roofline."""
    for number, row in enumerate(rows[:6]):
        near = f"  ({shares[row.name]:.0%} of the roofline)" if row.name in shares else ""
        times = f"{row.events:,} x" if row.events else ""
        yield plain(
            f"{title if not number else '':10}{ns(row.length):>10} {row.share:5.1%} {times:>9}"
            f" {cut(row.name)}{near}"
        )


def without_window(found: Review) -> Iterator[str]:
    """Of a CPU, or of an engine's layers: no window to account for."""
    if found.facts.steps:
        lengths = [step.dur for step in found.facts.steps]
        if found.trace.source == "tensorrt":
            yield f"step      {ns(lengths[0])} (of the engine, the median of its runs)"
        else:
            yield f"step      {stepped(lengths)}"
    if found.host is not None:
        whole = sum(found.host.parts.values())
        yield f"parts     {shares_of(found.host.parts, whole)}"
        yield f"bound     {found.host.word} ({found.host.share:.0%}): {found.host.meaning}"
    yield from fixes(found)
    shares = roofline.by_operator(found.attained)
    if len(found.trace.gpu):
        yield from table("operators", found.operators, shares)
        yield from table("kernels", found.kernels)
    elif found.operators:
        yield "operators on the CPU, each without what it calls:"
        yield from table("", found.operators, shares)


def ns(value: float) -> str:
    return scaled(value * 1e-9, "s")


def cut(text: str, width: int = WIDTH) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
