"""A review on a terminal."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ...perf.reports.formats import WORD
from ...perf.terms.units import scaled
from ..facts import roofline
from ..facts.steps import TraceStep
from ..findings.bound import Bound
from ..findings.diff import Diff
from ..findings.ranks import Ranks
from ..findings.review import Review, Row
from ..tables import captured

# Characters of the bar.
BAR = 60
# A character a part.
MARKS = {
    "compute": "█",
    "exposed comm": "▓",
    "exposed copies": "▒",
    "input": "i",
    "sync": "s",
    "setup": "m",
    "host work": "h",
    "launch": "l",
    "kernel wait": "·",
    "other": "o",
    "unknown": "?",
}
# Characters of a name, and of one among several.
WIDTH = 100
CODE = 80
# A step is uneven from so many times the others' work on, if that is so much of it; of so many
# steps.
UNEVEN, WORTH_STEP, FEWEST_STEPS = 1.5, 0.02, 3
# Fixes that are shown.
FIXES = 3


def lines(review: Review) -> Iterator[str]:
    """Yields the screen's lines, in the order in which a reader asks (docs/traces.md, Reading)."""
    trace, facts = review.trace, review.facts
    yield (
        f"{Path(trace.path).name}: {machine(review)}, {trace.events:,} events, {len(trace.gpu):,} on the GPU"
    )
    yield f"trust     {trusted(review)}"
    for note in review.trust.notes:
        yield f"          - {note}"
    if review.bound is None:
        yield from without_window(review)
        return
    if facts.steps:
        yield f"step      {stepped([step.dur for step in facts.steps])}"
        for odd in uneven(facts.steps):
            yield f"          {odd}"
    whole, beyond = review.bound.whole, beyond_window(review)
    yield f"{'time' if beyond else 'window':9} {ns(whole)}: {shares_of(review.bound.parts, whole)}"
    yield f"          {bar(review.bound.parts, whole)}"
    if beyond:
        yield f"          {beyond}"
    yield f"bound     {bound_by(review.bound)}: {review.bound.meaning}"
    if review.culprits:
        yield "idle      what the host did meanwhile:"
        for culprit in review.culprits[:5]:
            part = culprit.length / max(1, int(facts.idle.length.sum()))
            yield (
                f"          {ns(culprit.length):>10} {part:5.1%}  {culprit.blame}:"
                f" {cut(culprit.label)} ({culprit.gaps:,} gaps)"
            )
    yield from fixes(review)
    yield from table("operators", review.operators, roofline.by_operator(review.attained))
    yield from table("kernels", review.kernels)
    if len(review.streams) > 1:
        for number, stream in enumerate(review.streams[:6]):
            yield (
                f"{'streams' if not number else '':10}{ns(stream.busy):>10}"
                f" {stream.busy / max(1, review.bound.whole):5.1%} {f'{stream.events:,} x':>9} device"
                f" {stream.device}, stream {stream.stream}"
            )
    if review.peak_bytes is None:
        yield "memory    not known (profile_memory=True records it)"
    else:
        yield f"memory    at most {scaled(review.peak_bytes, 'B')} allocated"


def shares_of(parts: Mapping[str, int], whole: int) -> str:
    """Returns the parts that are not empty, each as a share of the whole."""
    return ", ".join(f"{part} {length / whole:.1%}" for part, length in parts.items() if length)


def beyond_window(review: Review) -> str:
    """Returns what lies in the steps before the GPU's first event and after its last; empty where
    the window is all.
    """
    line, (start, end) = review.facts.line, review.facts.wall
    if line.window == end - start:
        return ""
    return (
        f"all steps: {ns(line.start - start)} before the GPU's first event, {ns(line.window)} until its last,"
        f" {ns(end - line.end)} after it"
    )


def bound_by(bound: Bound) -> str:
    """Returns the bound with its share, and a second one that is nearly as large."""
    second = f" and {bound.second} ({bound.second_share:.0%})" if bound.second else ""
    return f"{bound.word} ({bound.share:.0%}){second}"


def fixes(review: Review) -> Iterator[str]:
    facts = review.facts
    if review.bound is None and not review.fixes:
        return
    yield "fixes     " + (
        "each with what it can bring at most; they overlap" if review.fixes else "no rule found its evidence"
    )
    for number, fix in enumerate(review.fixes[:FIXES], 1):
        yield (
            f"          {number}. {fix.title}: at most {ns(fix.ceiling)} of {ns(facts.span)}"
            f" ({fix.ceiling / max(1, facts.span):.0%}){a_step(fix.ceiling, len(facts.steps))}"
        )
        for evidence in fix.evidence:
            yield f"             {evidence}"
        yield f"             {fix.advice}"
        if fix.code:
            yield f"             in {'; '.join(cut(name, CODE) for name in fix.code)}"


def a_step(length: int, steps: int) -> str:
    return f", {ns(length / steps)} a step" if steps > 1 else ""


def difference(diff: Diff) -> Iterator[str]:
    """Yields the lines of two traces: the verdict, then what moved and why."""
    base, head = diff.base, diff.head
    for name, side in (("BASE", base), ("HEAD", head)):
        steps = f"{len(side.facts.steps)} step{'' if len(side.facts.steps) == 1 else 's'}"
        yield (
            f"{name}      {Path(side.trace.path).name}: {machine(side)},"
            f" {steps}{f'; bound by {side.bound.word}' if side.bound else ''}"
        )
    for finding in diff.verdict.findings:
        before, after = ns((finding.base or 0) * 1e9), ns((finding.head or 0) * 1e9)
        yield (
            f"{finding.metric:9} {before} -> {after} a {diff.per},"
            f" {(finding.ratio or 1) - 1:+.1%}: {WORD[finding.verdict]}"
        )
    for reason in diff.verdict.reasons:
        yield f"note      {reason}"
    if diff.because:
        yield f"so        {diff.because}"
    for title, rows in (
        ("kinds", diff.kinds),
        ("parts", diff.parts),
        ("operators", diff.operators),
        ("kernels", diff.kernels),
        ("idle", diff.idle),
    ):
        shown = [row for row in sorted(rows, key=lambda row: -abs(row.change)) if row.change][:6]
        for number, row in enumerate(shown):
            sign = "+" if row.change > 0 else "-"
            yield (
                f"{title if not number else '':9} {sign}{ns(abs(row.change)):>9}  {ns(row.before):>9} ->"
                f" {ns(row.after):>9}  {cut(row.where)}{row.times}"
            )
    yield f"review: {WORD[diff.verdict.verdict]}"


def machine(review: Review) -> str:
    """Returns the GPU, or what else the file knows of the machine."""
    origin = captured.of(review.trace)
    words = [
        review.trace.gpu_name if len(review.trace.gpu) or review.trace.device else "no GPU",
        origin.case if origin else "",
        origin.hardware if origin else "",
    ]
    return ", ".join(cut(word, 2 * WIDTH) for word in words if word)


def together(ranks: Ranks) -> Iterator[str]:
    """Yields the lines of several ranks: what each one's time went into, and who kept the others
    waiting.
    """
    world = f" of {ranks.world}" if ranks.world else ""
    shared = sum(rank.matched for rank in ranks.ranks)
    yield (
        f"ranks     {len(ranks.ranks)}{world}; {shared:,} of"
        f" {sum(rank.collectives for rank in ranks.ranks):,} collectives are in several of these files"
    )
    for rank in ranks.ranks:
        bound = rank.review.bound
        shares = f"{ns(bound.whole)}: {shares_of(bound.parts, bound.whole)}" if bound else "no GPU events"
        yield f"rank {rank.number:<4} {Path(rank.review.trace.path).name}: {shares}"
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
    if (late := ranks.straggler) is not None:
        yield (
            f"straggler rank {late.number}: without it the others would have gone on {ns(late.held)} earlier;"
            f" why: hotlap review {late.review.trace.path}"
        )
    elif shared:
        yield "straggler none"
    else:
        yield "straggler not known: no collective of these files ends at the same time under the same name"
    for reason in ranks.verdict.reasons:
        yield f"note      {reason}"


def trusted(review: Review) -> str:
    grades: dict[str, list[str]] = {}
    for name, grade in review.trust.grades.items():
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


def uneven(steps: Sequence[TraceStep]) -> Iterator[str]:
    """Yields which step has more of the device's work, or of its collectives, than the others."""
    if len(steps) < FEWEST_STEPS:
        return
    for what, lengths in (
        ("collectives", [step.collectives for step in steps]),
        ("work of the device", [step.busy for step in steps]),
    ):
        most = max(range(len(steps)), key=lengths.__getitem__)
        others = statistics.median([*lengths[:most], *lengths[most + 1 :]])
        more = lengths[most] - others
        if lengths[most] >= UNEVEN * others and more >= WORTH_STEP * steps[most].dur:
            yield (
                f"{steps[most].name} has {ns(lengths[most])} of {what}, the others {ns(others)} (median): if"
                " it is not meant, a rank was late or a shape another"
            )
            return


def bar(parts: dict[str, int], window: int) -> str:
    """Returns the bar, always as long: characters are rounded by the largest remainder."""
    if not window:
        return ""
    exact = {part: BAR * length / window for part, length in parts.items()}
    width = {part: int(value) for part, value in exact.items()}
    for part in sorted(exact, key=lambda name: width[name] - exact[name])[: BAR - sum(width.values())]:
        width[part] += 1
    return (
        "".join(MARKS[part] * count for part, count in width.items())
        + "  "
        + " ".join(f"{MARKS[part]} {part}" for part, length in parts.items() if width[part])
    )


def table(title: str, rows: list[Row], shares: Mapping[str, float] = MappingProxyType({})) -> Iterator[str]:
    """Yields a line a row; `shares` are of the roofline, by name."""
    names = shortened([row.name for row in rows[:6]])
    for number, (row, name) in enumerate(zip(rows, names, strict=False)):
        near = f"  ({shares[row.name]:.0%} of the roofline)" if row.name in shares else ""
        times = f"{row.events:,} x" if row.events else ""
        yield f"{title if not number else '':10}{ns(row.length):>10} {row.share:5.1%} {times:>9} {name}{near}"


def without_window(review: Review) -> Iterator[str]:
    """Yields the lines of a CPU or of an engine's layers, which have no window to account for."""
    if review.facts.steps:
        lengths = [step.dur for step in review.facts.steps]
        if review.trace.source == "tensorrt":
            yield f"step      {ns(lengths[0])} (of the engine, the median of its runs)"
        else:
            yield f"step      {stepped(lengths)}"
    if review.host is not None:
        whole = sum(review.host.parts.values())
        yield f"parts     {shares_of(review.host.parts, whole)}"
        yield f"bound     {bound_by(review.host)}: {review.host.meaning}"
    yield from fixes(review)
    shares = roofline.by_operator(review.attained)
    if len(review.trace.gpu):
        yield from table("operators", review.operators, shares)
        yield from table("kernels", review.kernels)
    elif review.operators:
        yield "operators on the CPU, each without what it calls:"
        yield from table("", review.operators, shares)


def ns(value: float) -> str:
    return scaled(value * 1e-9, "s")


def shortened(names: list[str], width: int = WIDTH) -> list[str]:
    """Returns names of at most so many characters; those that would then be alike are cut where
    they are, and not at their end.
    """
    short = [cut(name, width) for name in names]
    for text in {each for each in short if short.count(each) > 1}:
        alike = [index for index, each in enumerate(short) if each == text]
        if len({names[index] for index in alike}) == 1:
            continue
        columns = enumerate(zip(*(names[index] for index in alike), strict=False))
        common = next((place for place, chars in columns if len(set(chars)) > 1), width)
        head = width // 3
        for index in alike:
            # A little of what they share, for its meaning.
            rest = names[index][max(head, common - width // 6) :]
            short[index] = f"{names[index][:head]}…{cut(rest, width - head - 1)}"
    return short


def cut(text: str, width: int = WIDTH) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
