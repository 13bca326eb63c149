"""Draws runs with matplotlib: curves over steps, confusion matrices, calibration.

Panels are drawn together as a PNG, or each by itself as an SVG of a page. Colours are those of
Okabe and Ito (https://jfly.uni-koeln.de/color/), which people with any colour vision tell apart;
each run has a mark of its own too.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from ..perf.terms import escape
from . import class_report
from .class_report import ClassReport
from .curves import Curve, by_metric
from .records import StoredTraining


class Theme(NamedTuple):
    """The colours of a picture."""

    ink: str
    faint: str
    ground: str
    # Of shares, from none to all.
    shades: str
    # One a run.
    lines: tuple[str, ...]


LIGHT = Theme(
    "#1d2129",
    "#68707d",
    "#ffffff",
    "Blues",
    ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#1d2129"),
)
DARK = Theme(
    "#e4e7ec",
    "#9aa3b0",
    "#1d2128",
    "Blues_r",
    ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#e4e7ec"),
)
# One a run, and its sign in text.
MARKS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖"}
# Lines of a split: a training's own has the noise of its batches.
TRAIN: dict[str, Any] = {"linestyle": "--", "linewidth": 1.0, "alpha": 0.75}
VALIDATION: dict[str, Any] = {"linestyle": "-", "linewidth": 1.5}
# Points up to which each has a mark.
MOST_MARKS = 30
# Classes up to which a confusion matrix has numbers.
MOST_CLASSES = 12
# Characters of a metric's name above its panel.
MOST_TITLE = 28
# A metric whose largest value is so many times its least has a logarithmic axis, up to what floats
# of 64 bits have room for.
LOG_FROM, LOG_TO = 20, 1e100
# Inches of a panel, and dots per inch of a PNG: two panels side by side are 1440 pixels wide.
WIDTH, HEIGHT, DPI = 4.0, 2.9, 180
# Inches of a line of the legend, which has two runs.
LABEL_HEIGHT = 0.3
# Of a PNG's height: one with hundreds of panels is coarser.
MOST_PIXELS = 30_000
# What a metric counts, where its name does not say it.
UNITS = {
    "accuracy": "share of samples",
    "token_accuracy": "share of tokens",
    "calibration_error": "share of samples",
    "f1_macro": "0 to 1",
    "f1_worst": "0 to 1",
    "bits_per_byte": "bit/byte",
    "perplexity": "per token",
}


class Panel(NamedTuple):
    """One diagram."""

    # What it shows, for who does not see it.
    words: str
    draw: Callable[[Axes, Theme], None]


def panels(chosen: Sequence[StoredTraining]) -> list[Panel]:
    """Returns what there is to draw of runs: a panel for each metric; of a single classifier its
    report on the validation split too.
    """
    curves = by_metric([record.curves for record in chosen])
    every = [over_steps(metric, lines) for metric, lines in curves.items()]
    report = class_report.read(chosen[0].folder, "validation") if len(chosen) == 1 else None
    return every if report is None else [*every, confusion(report), calibration(report)]


def over_steps(metric: str, lines: Sequence[Curve]) -> Panel:
    """Returns a panel of one metric over optimizer steps: a colour and a mark a run, dashed on the
    training split.
    """
    name = metric.replace("_", " ")
    name = name if len(name) <= MOST_TITLE else f"{name[: MOST_TITLE - 1]}…"
    title = escape.plain(f"{name} ({split_words(lines)})")

    def draw(axes: Axes, theme: Theme) -> None:
        for curve in lines:
            steps, values = zip(*curve.points, strict=True)
            axes.plot(
                steps,
                values,
                color=color(curve.run, theme),
                marker=mark(curve.run) if len(steps) <= MOST_MARKS else "",
                markersize=3.5,
                **(TRAIN if curve.split == "train" else VALIDATION),
            )
        finite = [value for curve in lines for _, value in curve.points if math.isfinite(value)]
        unit = UNITS.get(metric, "")
        low, high = min(finite, default=0.0), max(finite, default=0.0)
        if 0 < LOG_FROM * low < high < LOG_TO:
            logarithmic(axes, high / low)
            unit = f"{unit}, log scale" if unit else "log scale"
        axes.set_title(title)
        axes.set_ylabel(unit)
        axes.set_xlabel("optimizer step")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))

    return Panel(f"{title} over optimizer steps", draw)


def split_words(lines: Sequence[Curve]) -> str:
    """Returns the splits that curves are of, and where there are two, how each is drawn."""
    splits = sorted({curve.split for curve in lines})
    return splits[0] if len(splits) == 1 else "train dashed, validation solid"


def logarithmic(axes: Axes, times: float) -> None:
    """Makes the y axis logarithmic, with ticks in plain figures. times: its upper end over its
    lower one.
    """
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if times < 300 else (1,)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def confusion(report: ClassReport) -> Panel:
    """Returns a panel of which classes are taken for which; colours are shares of a true class."""

    def draw(axes: Axes, theme: Theme) -> None:
        counts = np.asarray(report.confusion)  # (C, C)
        shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
        axes.imshow(shares, cmap=theme.shades, vmin=0, vmax=1)
        axes.grid(False)
        if len(counts) <= MOST_CLASSES:
            axes.set_xticks(range(len(counts)))
            axes.set_yticks(range(len(counts)))
            for row, column in zip(*np.nonzero(counts), strict=True):
                deep = (shares[row, column] > 0.5) == (theme is LIGHT)
                axes.text(
                    column,
                    row,
                    str(counts[row, column]),
                    ha="center",
                    va="center",
                    fontsize=min(9, 75 / len(counts)),
                    color="#ffffff" if deep else "#000000",
                )
        axes.set_title("confusion, samples (validation)")
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")

    return Panel("confusion matrix (validation), as in the table of classes", draw)


def calibration(report: ClassReport) -> Panel:
    """Returns a reliability diagram: accuracy of the samples in each bin of confidence, with their
    number, beside the line on which both are equal.
    """

    def draw(axes: Axes, theme: Theme) -> None:
        axes.plot([0, 1], [0, 1], color=theme.faint, linestyle=":", linewidth=1.2)
        for each in report.bins:
            if each.accuracy is None:
                continue
            axes.bar(
                each.low,
                each.accuracy,
                each.high - each.low,
                align="edge",
                color=theme.lines[0],
                edgecolor=theme.ground,
            )
            axes.text(
                (each.low + each.high) / 2,
                each.accuracy + 0.02,
                str(each.samples),
                ha="center",
                va="bottom",
                fontsize=7,
                color=theme.ink,
            )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.1)
        axes.set_title("calibration (validation)")
        axes.set_xlabel("confidence (highest probability)")
        axes.set_ylabel("accuracy; samples above")

    return Panel("accuracy by confidence (validation)", draw)


def png(drawn: Sequence[Panel], labels: Sequence[str]) -> bytes:
    """Returns all panels in one picture, two in a row. labels: the runs, in a legend above."""
    rows = math.ceil(len(drawn) / 2)
    height = rows * HEIGHT + LABEL_HEIGHT * math.ceil(len(labels) / 2)
    with drawing(LIGHT):
        figure = Figure(figsize=(2 * WIDTH, height), layout="constrained")
        for axes, panel in zip(figure.subplots(rows, 2, squeeze=False).flat, drawn, strict=False):
            panel.draw(axes, LIGHT)
        for axes in figure.axes[len(drawn) :]:
            axes.set_axis_off()
        handles = [
            Line2D([], [], color=color(run, LIGHT), marker=mark(run), label=escape.plain(label))
            for run, label in enumerate(labels)
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=2, frameon=False)
        return saved(figure, "png", min(DPI, int(MOST_PIXELS / height)))


def svg(panel: Panel, theme: Theme) -> bytes:
    """Returns one panel."""
    with drawing(theme):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        panel.draw(figure.subplots(), theme)
        return saved(figure, "svg", DPI)


def saved(figure: Figure, kind: str, dpi: int) -> bytes:
    """Returns the bytes of a picture: the same each time, without the date."""
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
    return file.getvalue()


def mark(run: int) -> str:
    return [*MARKS][run % len(MARKS)]


def color(run: int, theme: Theme) -> str:
    return theme.lines[run % len(theme.lines)]


@contextmanager
def drawing(theme: Theme) -> Iterator[None]:
    """Draws in a theme. A name is no formula, and one in a script that the font lacks has boxes."""
    settings: Any = {
        "text.parse_math": False,
        "svg.hashsalt": "hotlap",
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": theme.ground,
        "figure.facecolor": theme.ground,
        "grid.color": theme.faint,
        "grid.alpha": 0.25,
        "axes.edgecolor": theme.faint,
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), theme.ink
        ),
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield
