"""A results file as a picture: the speed-up of each case over eager, with its interval.

Plain SVG, written line by line, so that the same results make the same bytes. It stands on a ground
of its own, light or dark as the reader's system asks, so that it can be read on any page.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..lookup.cases import LIBRARY_DEFAULTS, PACE
from ..stats import estimates
from ..terms.escape import xml
from ..terms.result import Result, Results
from ..terms.units import scaled
from .report import baseline, baselines, row, setting, with_width

# Width of the picture in pixels.
WIDTH = 760
# Where the axis begins and ends, and where the figures beside it end.
LEFT = 210
RIGHT = 620
END = 744
# Height of a line.
LINE = 22
# Above the first line: title and the axis' numbers.
TOP = 64
# Characters of a line of small print that fit into WIDTH.
SMALL_PRINT = 112
# Where the axis has numbers, times ten to any power.
TICKS = (1.0, 2.0, 5.0)
STYLE = """<style>
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  text { stroke: #ffffff; stroke-width: 4; paint-order: stroke }
  .ground { fill: #ffffff; stroke: #d1d9e0 }
  .title { font-size: 15px; font-weight: 600 }
  .model { font-weight: 600 }
  .small { font-size: 11px; fill: #59636e }
  .grid { stroke: #d1d9e0 }
  .one { stroke: #59636e; stroke-width: 1.5 }
  .interval { stroke: #0969da; stroke-width: 2 }
  .dot { fill: #0969da; stroke: #0969da; stroke-width: 2 }
  .noisy { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; stroke: #0d1117 }
    .ground { fill: #0d1117; stroke: #3d444d }
    .small { fill: #9198a1 }
    .grid { stroke: #3d444d }
    .one { stroke: #9198a1 }
    .interval { stroke: #4493f8 }
    .dot { fill: #4493f8; stroke: #4493f8 }
    .noisy { fill: #0d1117 }
  }
</style>"""


class Mark(NamedTuple):
    """One line of the picture."""

    label: str
    # Over eager of the same race; None where it has no time.
    speedup: estimates.Estimate | None
    # In place of the mark, or behind its figures.
    note: str


class Axis(NamedTuple):
    """Speed-ups on a log scale, so that twice as fast and half as fast are equally far from 1."""

    low: float
    high: float

    def x(self, value: float) -> float:
        """Returns the pixel of a speed-up; what lies outside is drawn at the border."""
        share = math.log(min(max(value, self.low), self.high) / self.low) / math.log(self.high / self.low)
        return LEFT + share * (RIGHT - LEFT)

    def ticks(self) -> list[float]:
        """Returns the numbers that stand above the axis, the least first."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        return [
            step * 10.0**power
            for power in powers
            for step in TICKS
            if self.low <= step * 10.0**power <= self.high
        ]


def svg(results: Results) -> str:
    """Returns the whole picture."""
    groups = grouped(results.results)
    axis = axis_of([mark for marks in groups.values() for mark in marks])
    lines = sum(1 + len(marks) for marks in groups.values())
    notes = list(small_print(results))
    bottom = TOP + lines * LINE + 8
    height = bottom + 16 * len(notes) + 12
    title = f"Speed-up over {baselines(results.results)}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
        f' viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{xml(title)} of each backend, by model</title>",
        STYLE,
        f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>',
        f'<text class="title" x="16" y="26">{xml(title)}</text>',
        f'<text class="small" x="{END}" y="26" text-anchor="end">right of 1x is faster; the bar is'
        " the 95 % interval; hollow: wide or unsteady</text>",
    ]
    for tick in axis.ticks():
        x = f"{axis.x(tick):.1f}"
        parts += [
            f'<line class="{"one" if tick == 1 else "grid"}" x1="{x}" y1="{TOP - 8}" x2="{x}"'
            f' y2="{bottom - 8}"/>',
            f'<text class="small" x="{x}" y="{TOP - 14}" text-anchor="middle">{tick:g}x</text>',
        ]
    y = TOP
    for model, marks in groups.items():
        parts.append(f'<text class="model" x="16" y="{y + 12}">{xml(model)}</text>')
        for mark in marks:
            y += LINE
            parts += drawn(mark, axis, y)
        y += LINE
    parts += [
        f'<text class="small" x="16" y="{bottom + 10 + 16 * index}">{xml(note)}</text>'
        for index, note in enumerate(notes)
    ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def grouped(results: Sequence[Result]) -> dict[str, list[Mark]]:
    """Returns the lines below each heading: a model, its batch size and target, eager's latency.

    Eager is no line, it is the 1 of the axis; nor is eager under library defaults.
    """
    groups: dict[str, list[Mark]] = {}
    for result in results:
        case, eager = result.case, baseline(results, result)
        if result is eager or case.backend == PACE or case.options == LIBRARY_DEFAULTS:
            continue
        heading = f"{case.workload}, batch {case.batch}, {case.target}"
        if eager is not None:
            heading += f": {eager.case.label} {scaled(eager.metrics['latency'].centre, 's')}"
        *_, status = cells = row(result, eager, None)
        label = cells[0].removeprefix(f"{case.workload} ")
        latency = result.metrics.get("latency")
        if latency is None or eager is None:
            mark = Mark(label, None, status)
        else:
            speedup = estimates.inverse(estimates.ratio(eager.metrics["latency"].values, latency.values))
            mark = Mark(label, speedup, "noisy" if result.status == "noisy" else "")
        groups.setdefault(heading, []).append(mark)
    return groups


def axis_of(marks: Sequence[Mark]) -> Axis:
    """Returns an axis with 1 and every interval that has ends on it, and a twentieth beyond."""
    values = [1.0]
    for mark in marks:
        if mark.speedup is not None:
            ends = (mark.speedup.low, mark.speedup.centre, mark.speedup.high)
            values += [value for value in ends if 0 < value < math.inf]
    reach = max(math.log(max(values) / min(values)), math.log(2)) / 20
    return Axis(min(values) * math.exp(-reach), max(*values, 2.0) * math.exp(reach))


def drawn(mark: Mark, axis: Axis, y: int) -> list[str]:
    """Returns one line of the picture: label, interval, dot, figures."""
    parts = [f'<text x="32" y="{y + 12}">{xml(mark.label)}</text>']
    if mark.speedup is None:
        note = f'<text class="small" x="{END}" y="{y + 12}" text-anchor="end">{xml(mark.note)}</text>'
        return [*parts, note]
    speedup = mark.speedup
    low, centre, high = (f"{axis.x(value):.1f}" for value in (speedup.low, speedup.centre, speedup.high))
    if math.isfinite(speedup.half_width):
        parts += [f'<line class="interval" x1="{low}" y1="{y + 8}" x2="{high}" y2="{y + 8}"/>']
        parts += [
            f'<line class="interval" x1="{end}" y1="{y + 4}" x2="{end}" y2="{y + 12}"/>'
            for end in (low, high)
        ]
    kind = "dot noisy" if mark.note else "dot"
    figures = with_width(speedup, f"{speedup.centre:.2f}x")
    return [
        *parts,
        f'<circle class="{kind}" cx="{centre}" cy="{y + 8}" r="4"/>',
        f'<text x="{END}" y="{y + 12}" text-anchor="end">{xml(figures)}</text>',
    ]


def small_print(results: Results) -> Iterator[str]:
    """Yields lines that fit: hardware, libraries, how the race went."""
    for line in setting(results):
        text = ""
        for part in line.split("; "):
            if text and len(text) + len(part) > SMALL_PRINT:
                yield text
                text = ""
            text += f"; {part}" if text else part
        yield text
