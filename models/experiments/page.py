"""The page of an experiment, in Markdown: the answer first, then what it rests on.

All of it comes from the experiment's file, so that it can be written again. Imports no torch.
"""

from __future__ import annotations

import math
import re
import textwrap
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from statistics import fmean, stdev

from ...perf.stats.arms import Contrast
from ...perf.stats.power import detectable
from ...perf.terms import escape
from .. import records
from .design import value_text
from .record import FinishedExperiment, finite, mean, sentence

# So many pairs at most are proposed; where more would be needed, that is said.
MOST_PAIRS = 500
# Fewest pairs of which some pattern of signs is rarer than 5 %.
FEWEST_SIGNS = 6
# What is said of where the first training took place; the file has all.
PLACE = ("cpu", "cores", "threads", "isa", "python", "torch", "lightning", "numpy", "commit")
# Prose is broken here; tables and headings are not.
COLUMNS = 100


def markdown(record: FinishedExperiment) -> str:
    """Returns the page."""
    return "\n".join([*lines(record), ""])


def lines(record: FinishedExperiment) -> Iterator[str]:
    """Yields the page's lines."""
    contrasts = record.contrasts()
    yield f"# {text(record.design.question)}"
    yield ""
    for arm, contrast in contrasts.items():
        yield from bullet(sentence(record, arm, contrast))
    yield ""
    yield f"![Differences of the pairs]({record.name}.png)"
    yield ""
    yield from arms_table(record, contrasts)
    yield ""
    yield from prose(
        "A pair is two trainings with one seed, arm minus control. p: of no difference, by Student's t"
        " of the pairs, and by all patterns of signs, which asks for symmetry alone. p (smaller): of a"
        " difference of at least the smallest effect of interest. r: correlation of the pairs."
        + unpaired(contrasts)
    )
    yield ""
    yield "## Design"
    yield ""
    yield from table(("what", "as stated before the first training"), design_rows(record))
    yield ""
    yield "## What it does not show"
    yield ""
    for limit in limits(record, contrasts):
        yield from bullet(limit)
    yield ""
    yield "## Every training"
    yield ""
    yield from trainings_table(record)
    yield ""
    yield "## Again"
    yield ""
    yield "```"
    yield f"hotlap experiment {record.name}.yaml"
    yield "```"


def arms_table(record: FinishedExperiment, contrasts: dict[str, Contrast]) -> Iterator[str]:
    """Yields a row for the control and for each arm."""
    head = (
        "arm", "finished", f"{record.design.metric}, mean", "SD", "difference", "interval", "p", "p (signs)",
        "p (smaller)", "r", "steps", "s a training",
    )  # fmt: skip
    rows = []
    for arm in record.design.every_arm:
        values = [value for value in record.values(arm) if value is not None]
        outcomes = [outcome for outcome in record.of(arm) if outcome.value is not None]
        row = [
            arm if arm in contrasts else f"{arm} (control)",
            f"{len(values)} of {len(record.design.every_seed)}",
            number(mean(record.values(arm))),
            f"{stdev(values):.2g}" if len(values) > 1 else "",
        ]
        if arm in contrasts:
            contrast = contrasts[arm]
            known = math.isfinite(contrast.low)
            row += [
                f"{contrast.difference:+.3g}" if contrast.pairs else "",
                span(contrast) if known else "",
                f"{contrast.p:.2g}" if known else "",
                "" if contrast.p_signs is None else f"{contrast.p_signs:.2g}",
                f"{contrast.p_smaller:.2g}" if known else "",
                "" if contrast.correlation is None else f"{contrast.correlation:+.2f}",
            ]
        else:
            row += [""] * 6
        steps = sorted({outcome.steps for outcome in outcomes})
        row += [
            " to ".join(map(str, steps[:: max(len(steps) - 1, 1)])),
            f"{fmean(outcome.seconds for outcome in outcomes):.0f}" if outcomes else "",
        ]
        rows.append(row)
    yield from table(head, rows)


def span(contrast: Contrast) -> str:
    """Returns an interval with its confidence."""
    return f"{contrast.low:+.3g} to {contrast.high:+.3g} ({100 * contrast.confidence:.4g} %)"


def unpaired(contrasts: dict[str, Contrast]) -> str:
    """Returns what a test without pairs would say where pairs do not help."""
    shown = [
        f"{arm} p {contrast.p_unpaired:.2g}"
        for arm, contrast in contrasts.items()
        if contrast.correlation is not None and contrast.correlation <= 0
    ]
    return (
        f" Where r is not positive, unpaired (Welch), judging nothing: {', '.join(shown)}." if shown else ""
    )


def design_rows(record: FinishedExperiment) -> Iterator[tuple[str, str]]:
    """Yields what was stated before."""
    design = record.design
    yield "registered", f"{record.registered} UTC"
    data = f", data {design.data}" if design.data else ""
    config = f", {design.config}" if design.config else ""
    yield "network", f"{design.train}{data}{config}"
    for arm, settings in design.every_arm.items():
        words = ", ".join(f"{key}={value_text(value)}" for key, value in settings.items())
        yield f"{'control' if arm in design.control else 'arm'} {arm}", words or "as it is"
    if design.settings:
        yield "all", ", ".join(f"{key}={value_text(value)}" for key, value in design.settings.items())
    yield "metric", f"{design.metric} on the validation split after training, {design.better} is better"
    effect = design.smallest_effect
    own = f" ({record.smallest:.3g})" if isinstance(effect, str) else ""
    yield "smallest effect of interest", f"{effect}{own}"
    yield "seeds", ", ".join(map(str, design.every_seed))
    yield "order", "seed by seed, the arms of each in random order"
    yield (
        "error rate",
        f"{design.alpha:g} over all arms for a difference called, as much for none called (Holm)",
    )
    place = {key: record.place.get(key) for key in PLACE}
    place["isa"] = " ".join(place["isa"] or ())
    yield "machine", ", ".join(f"{key} {value}" for key, value in place.items() if value)


def limits(record: FinishedExperiment, contrasts: dict[str, Contrast]) -> Iterator[str]:
    """Yields what the answers do not say."""
    design = record.design
    yield (
        f"Anything beyond {design.train} as set above: other sizes, data and budgets were not tried, and"
        " settings that suit an arm better than the control's were not looked for."
    )
    yield "The test split: it was not touched, and the figures are of the split that choices are made by."
    yield (
        "Equal beginnings: a seed fixes the order of the data and what is drawn for them; where an arm has"
        " other weights than the control, it fixes nothing that these share."
    )
    yield "Speed: trainings ran beside each other, so their times compare nothing."
    if (pairs := min((each.pairs for each in contrasts.values()), default=0)) < FEWEST_SIGNS:
        yield (
            f"That differences are normal: with {pairs} pairs t takes it for granted, and no pattern of signs"
            f" is rarer than {2 / 2**pairs:.2g}."
        )
    for arm, contrast in contrasts.items():
        whole = not contrast.failed and not contrast.control_failed
        if contrast.answer == "could not tell" and contrast.pairs >= 2 and whole:
            yield f"Whether {arm} differs: {needed(record, contrast)}."
    for arm in design.every_arm:
        if failed := [outcome for outcome in record.of(arm) if outcome.value is None]:
            reasons = sorted({outcome.reason for outcome in failed})
            yield f"{arm} with seeds {', '.join(str(each.seed) for each in failed)}: {'; '.join(reasons)}."
    finished = {arm: [each for each in record.of(arm) if each.value is not None] for arm in design.every_arm}
    spent = {arm: fmean(each.steps for each in trainings) for arm, trainings in finished.items() if trainings}
    if len(set(spent.values())) > 1:
        words = ", ".join(f"{arm} {steps:.0f}" for arm, steps in spent.items())
        yield f"Equal numbers of steps: {words} on average."
    for key, values in record.varied.items():
        yield f"One {key}: it was {' and '.join(map(records.text, values))}."


def needed(record: FinishedExperiment, contrast: Contrast) -> str:
    """Returns how many pairs would find the smallest effect, as far as these pairs' spread says."""
    level = record.design.alpha / len(record.design.arms)

    def enough(pairs: int) -> bool:
        return detectable(contrast.spread, contrast.pairs, pairs, level) <= record.smallest

    pairs = bisect_left(range(2, MOST_PAIRS + 1), True, key=enough) + 2
    if pairs > MOST_PAIRS:
        return f"more than {MOST_PAIRS} pairs would be needed to find {record.smallest:.3g}"
    return f"about {pairs} pairs would find {record.smallest:.3g}"


def trainings_table(record: FinishedExperiment) -> Iterator[str]:
    """Yields a row a seed with every arm's value."""
    rows = []
    for index, seed in enumerate(record.design.every_seed):
        outcomes = [record.of(arm)[index] for arm in record.design.every_arm]
        rows.append(
            [str(seed), *("failed" if each.value is None else number(each.value) for each in outcomes)]
        )
    yield from table(("seed", *record.design.every_arm), rows)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yields a table in Markdown."""
    cells = [text(cell) for cell in head]
    yield f"| {' | '.join(cells)} |"
    yield "|" + "---|" * len(cells)
    for row in rows:
        yield f"| {' | '.join(text(cell) for cell in row)} |"


def bullet(words: str) -> list[str]:
    return wrapped(f"- {text(words)}", "  ")


def prose(words: str) -> list[str]:
    return wrapped(text(words), "")


def wrapped(words: str, indent: str) -> list[str]:
    """Returns lines of Markdown, none but the first of which begins a list, heading or rule."""
    first, *others = textwrap.wrap(words, COLUMNS - 1, subsequent_indent=indent, break_on_hyphens=False)
    return [first, *(re.sub(r"^( *)([-+#=>]|\d+(?=[.)]))", escaped_start, line) for line in others)]


def escaped_start(match: re.Match[str]) -> str:
    """Returns the first character of a line, or its number, so that it is text."""
    return f"{match[1]}{match[2]}\\" if match[2].isdecimal() else f"{match[1]}\\{match[2]}"


def number(value: float) -> str:
    return "" if finite(value) is None else f"{value:.6g}"


def text(words: str) -> str:
    """Returns words that stand in Markdown as they are."""
    return escape.markdown(words)
